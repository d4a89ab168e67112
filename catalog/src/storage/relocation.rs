use std::borrow::Cow;

/// A table's folder that lies elsewhere than its metadata says.
#[derive(Debug)]
pub(super) struct Relocation {
    from: String,
    to: String,
}

impl Relocation {
    pub(super) fn new(from: &str, to: &str) -> Self {
        Self { from: plain(from.trim_end_matches('/')).into_owned(), to: to.trim_end_matches('/').to_string() }
    }

    /// Where the file lies that metadata calls `location`: in the folder, when it lay in it before or when the location is
    /// relative; otherwise where it says.
    pub(super) fn apply<'a>(&self, location: &'a str) -> Cow<'a, str> {
        let location = plain(location);
        let inside = location.strip_prefix(self.from.as_str()).filter(|rest| rest.starts_with('/'));
        if let Some(rest) = inside {
            return Cow::Owned(format!("{}/{}", self.to, rest.trim_start_matches('/')));
        }
        if location.starts_with('/') || has_scheme(&location) {
            return location;
        }
        Cow::Owned(format!("{}/{}", self.to, location.trim_start_matches("./")))
    }
}

fn has_scheme(location: &str) -> bool {
    location.split_once(':').is_some_and(|(scheme, _)| scheme.chars().all(|c| c.is_ascii_alphanumeric()) && !scheme.is_empty())
}

/// One spelling for the locations of one file: Hadoop's names of S3 are those of S3, and `file:` has three slashes.
fn plain(location: &str) -> Cow<'_, str> {
    for scheme in ["s3a://", "s3n://"] {
        if let Some(rest) = location.strip_prefix(scheme) {
            return Cow::Owned(format!("s3://{rest}"));
        }
    }
    match location.strip_prefix("file:") {
        Some(rest) => Cow::Owned(format!("file:///{}", rest.trim_start_matches('/'))),
        None if location.starts_with('/') => Cow::Owned(format!("file:///{}", location.trim_start_matches('/'))),
        None => Cow::Borrowed(location),
    }
}

#[cfg(test)]
mod tests {
    use super::Relocation;

    #[test]
    fn locations_of_a_moved_table() {
        let moved = Relocation::new("s3://b/wh/t/", "file:///here/t");
        assert_eq!(moved.apply("s3://b/wh/t/data/x%2Fy.parquet"), "file:///here/t/data/x%2Fy.parquet");
        assert_eq!(moved.apply("s3a://b/wh/t/data/x"), "file:///here/t/data/x");
        assert_eq!(moved.apply("s3://b/wh/t2/data/x"), "s3://b/wh/t2/data/x");
        assert_eq!(moved.apply("metadata/m.avro"), "file:///here/t/metadata/m.avro");
        let local = Relocation::new("/wh/t", "file:///here/t");
        for spelling in ["file:/wh/t/d/x", "file:///wh/t/d/x", "/wh/t/d/x", "/wh/t//d/x"] {
            assert_eq!(local.apply(spelling), "file:///here/t/d/x");
        }
        let relative = Relocation::new("data/wh/t", "file:///here/t");
        assert_eq!(relative.apply("data/wh/t/metadata/m.avro"), "file:///here/t/metadata/m.avro");
    }
}
