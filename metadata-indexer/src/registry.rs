use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use tarndb_core::{Error, Result};

/// What users bring under names, which options of indexes name. Copies are the same set.
pub(crate) struct Registry<T: ?Sized>(Arc<RwLock<BTreeMap<String, Arc<T>>>>);

impl<T: ?Sized> Clone for Registry<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: ?Sized> Default for Registry<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: ?Sized> fmt::Debug for Registry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(names.keys()).finish()
    }
}

impl<T: ?Sized> Registry<T> {
    /// Adds one, in the place of another of its name. `what` is what it is called in the error.
    ///
    /// # Errors
    /// `InvalidInput` for a name that it cannot have.
    pub(crate) fn register(&self, what: &str, name: &str, own: Arc<T>) -> Result<()> {
        if !is_name(name) {
            let message = format!("{what} cannot have the name `{name}`: it is of letters, digits, `-` and `_`");
            return Err(Error::invalid_input(message));
        }
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_string(), own);
        Ok(())
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<T>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

/// Whether something can be registered under this name.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}
