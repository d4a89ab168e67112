use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use iceberg::TableIdent;

use super::{
    PointerStore, PointerSwap, SwapOutcome, namespace_exists, namespace_not_empty, namespace_text, no_such_namespace,
    no_such_table, table_exists,
};
use crate::Result;

/// Pointers in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryPointers(Mutex<BTreeMap<String, BTreeMap<String, String>>>);

impl MemoryPointers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<String, String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl PointerStore for MemoryPointers {
    async fn create_namespace(&self, namespace: &str, _properties: Vec<(String, String)>) -> Result<()> {
        let mut all = self.lock();
        if all.contains_key(namespace) {
            return Err(namespace_exists(namespace));
        }
        all.insert(namespace.to_string(), BTreeMap::new());
        Ok(())
    }

    async fn drop_namespace(&self, namespace: &str) -> Result<()> {
        let mut all = self.lock();
        let tables = all.get(namespace).ok_or_else(|| no_such_namespace(namespace))?.len();
        if tables > 0 {
            return Err(namespace_not_empty(namespace, tables));
        }
        all.remove(namespace);
        Ok(())
    }

    async fn list_namespaces(&self) -> Result<Vec<String>> {
        Ok(self.lock().keys().cloned().collect())
    }

    async fn namespace_exists(&self, namespace: &str) -> Result<bool> {
        Ok(self.lock().contains_key(namespace))
    }

    async fn list(&self, namespace: &str) -> Result<Vec<String>> {
        let all = self.lock();
        let tables = all.get(namespace).ok_or_else(|| no_such_namespace(namespace))?;
        Ok(tables.keys().cloned().collect())
    }

    async fn get(&self, ident: &TableIdent) -> Result<Option<String>> {
        let namespace = namespace_text(ident.namespace())?;
        Ok(self.lock().get(&namespace).and_then(|tables| tables.get(ident.name()).cloned()))
    }

    async fn insert(&self, ident: &TableIdent, location: &str) -> Result<()> {
        let namespace = namespace_text(ident.namespace())?;
        let mut all = self.lock();
        let tables = all.get_mut(&namespace).ok_or_else(|| no_such_namespace(&namespace))?;
        if tables.contains_key(ident.name()) {
            return Err(table_exists(ident));
        }
        tables.insert(ident.name().to_string(), location.to_string());
        Ok(())
    }

    async fn remove(&self, ident: &TableIdent, expected: Option<&str>) -> Result<bool> {
        let namespace = namespace_text(ident.namespace())?;
        let mut all = self.lock();
        let Some(tables) = all.get_mut(&namespace) else { return Ok(false) };
        let is_expected = |pointer: &String| expected.is_none_or(|expected| pointer == expected);
        Ok(tables.get(ident.name()).is_some_and(is_expected) && tables.remove(ident.name()).is_some())
    }

    async fn rename(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        let (source, target) = (namespace_text(from.namespace())?, namespace_text(to.namespace())?);
        let mut all = self.lock();
        if !all.contains_key(&target) {
            return Err(no_such_namespace(&target));
        }
        if all.get(&target).is_some_and(|tables| tables.contains_key(to.name())) {
            return Err(table_exists(to));
        }
        let location = all.get_mut(&source).and_then(|tables| tables.remove(from.name())).ok_or_else(|| no_such_table(from))?;
        all.entry(target).or_default().insert(to.name().to_string(), location);
        Ok(())
    }

    async fn swap(&self, swaps: &[PointerSwap]) -> Result<SwapOutcome> {
        let mut all = self.lock();
        for swap in swaps {
            let namespace = namespace_text(swap.ident.namespace())?;
            if all.get(&namespace).and_then(|tables| tables.get(swap.ident.name())) != Some(&swap.expected) {
                return Ok(SwapOutcome::Moved(swap.ident.clone()));
            }
        }
        for swap in swaps {
            let namespace = namespace_text(swap.ident.namespace())?;
            if let Some(pointer) = all.get_mut(&namespace).and_then(|tables| tables.get_mut(swap.ident.name())) {
                pointer.clone_from(&swap.new);
            }
        }
        Ok(SwapOutcome::Swapped)
    }
}
