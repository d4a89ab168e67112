//! A lake whose folder was moved or copied. Iceberg metadata names absolute locations, so that a moved lake does not find
//! its files, and a copy would change, and delete, those of its original.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Refuses the lake in `folder` when a metadata file that its catalog names elsewhere (one of `outside`) lies in the folder
/// too, at the same place.
///
/// # Errors
/// `InvalidInput`, naming the folder where the lake was made and what to do.
pub(super) fn check(folder: &Path, outside: &[String]) -> Result<()> {
    let Some(origin) = outside.iter().find_map(|location| origin(folder, location)) else {
        return Ok(());
    };
    let (here, there) = (folder.display(), origin.display());
    Err(Error::invalid_input(if origin.exists() {
        format!("`{here}` is a copy of the lake `{there}`: its tables name the files there; open `{there}` instead")
    } else {
        format!(
            "the lake `{here}` was moved from `{there}`, and its tables name the files there: move it back, or run \
             `ln -s {here} {there}`"
        )
    }))
}

/// The folder that corresponds to `folder` where `location` is.
fn origin(folder: &Path, location: &str) -> Option<PathBuf> {
    let path = location.strip_prefix("file:").unwrap_or(location);
    let path = PathBuf::from(format!("/{}", path.trim_start_matches('/')));
    path.ancestors().skip(1).find_map(|ancestor| {
        let here = folder.join(path.strip_prefix(ancestor).ok()?);
        // By another name it is the same folder.
        let moved = here.is_file() && here.canonicalize().ok() != path.canonicalize().ok();
        moved.then(|| ancestor.to_path_buf())
    })
}
