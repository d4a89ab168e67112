use std::fmt;
use std::hash::Hash;

use moka::future::Cache;
use moka::policy::EvictionPolicy;

/// Memory that the place of a value takes, roughly.
const ENTRY_BYTES: usize = 128;

/// What was read from files that never change, as much of it as fits into a budget of bytes: what was used last stays.
///
/// Clones share it.
pub(crate) struct ByteCache<K, V> {
    /// With the bytes that each takes.
    items: Cache<K, (V, u32)>,
    budget: u64,
}

impl<K, V> Clone for ByteCache<K, V> {
    fn clone(&self) -> Self {
        Self { items: self.items.clone(), budget: self.budget }
    }
}

impl<K, V> fmt::Debug for ByteCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteCache").field("budget", &self.budget).finish_non_exhaustive()
    }
}

impl<K: Eq + Hash + Send + Sync + 'static, V: Clone + Send + Sync + 'static> ByteCache<K, V> {
    /// Takes so many bytes of memory, roughly.
    pub(crate) fn new(budget: u64) -> Self {
        let items = Cache::builder().max_capacity(budget).weigher(|_, (_, bytes)| *bytes);
        // Others refuse what is new when they are full.
        Self { items: items.eviction_policy(EvictionPolicy::lru()).build(), budget }
    }

    pub(crate) async fn get(&self, key: &K) -> Option<V> {
        Some(self.items.get(key).await?.0)
    }

    /// Remembers a value that takes so many bytes, unless it would put out most of what is there.
    pub(crate) async fn put(&self, key: K, value: V, bytes: usize) {
        let bytes = u32::try_from(bytes + ENTRY_BYTES).unwrap_or(u32::MAX);
        if u64::from(bytes) > self.budget / 4 {
            return;
        }
        self.items.insert(key, (value, bytes)).await;
        // Else what is too much goes some time, when others come.
        if self.items.weighted_size() > self.budget {
            self.items.run_pending_tasks().await;
        }
    }

    /// Gives up a value, of which it is known that it will hardly be asked for again.
    pub(crate) async fn forget(&self, key: &K) {
        self.items.invalidate(key).await;
    }

    /// Bytes that are taken.
    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.items.weighted_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_used_last_stays() {
        let cache = ByteCache::new(1_000_000);
        let fit = 1_000_000 / (10_000 + ENTRY_BYTES);
        for number in 0..2 * fit {
            cache.put(number, number, 10_000).await;
            // In use all the time.
            assert_eq!(cache.get(&0).await, Some(0));
            assert!(cache.bytes() <= 1_000_000);
        }
        assert_eq!(cache.get(&(2 * fit - 1)).await, Some(2 * fit - 1), "what came last");
        assert_eq!(cache.get(&1).await, None, "what came first and was not used");
        cache.put(7, 7, 300_000).await;
        assert_eq!(cache.get(&7).await, None, "what would put out too much");
        assert_eq!(cache.clone().get(&0).await, Some(0), "clones share it");
        cache.forget(&0).await;
        assert_eq!(cache.get(&0).await, None, "what was given up");
    }
}
