use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use object_store::ObjectStore;

/// Object stores that the user brought, by the scheme and the bucket of their locations.
#[derive(Clone, Default)]
pub(crate) struct Stores(BTreeMap<String, Arc<dyn ObjectStore>>);

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Scheme and bucket of a location.
fn place(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find('/').unwrap_or(rest.len());
    url.get(..scheme.len() + "://".len() + end)
}

impl Stores {
    pub(crate) fn add(&mut self, url: &str, store: Arc<dyn ObjectStore>) {
        self.0.insert(place(url).unwrap_or(url).to_string(), store);
    }

    pub(crate) fn get(&self, url: &str) -> Option<Arc<dyn ObjectStore>> {
        place(url).and_then(|place| self.0.get(place)).cloned()
    }
}
