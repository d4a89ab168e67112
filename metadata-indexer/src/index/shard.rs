use hashbrown::HashTable;

/// That by which an object is known: a part of a hash of 128 bits, of which two agree among a billion objects by a chance of one in
/// a hundred billion.
pub(super) type KeyHash = [u32; 3];

/// 48 bytes, of words, so that no space is lost between them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) key: KeyHash,
    pub(super) sequence: [u32; 5],
    pub(super) e_tag: [u32; 2],
    pub(super) file: u32,
    /// Of what is gone, the day since 1970.
    pub(super) position: u32,
}

/// Entries by their keys. They lie close together, and the table, of which half may be empty, has their places only.
#[derive(Debug, Default)]
pub(super) struct Shard {
    entries: Vec<Entry>,
    places: HashTable<u32>,
}

fn slot(key: &KeyHash) -> u64 {
    u64::from(key[0]) << 32 | u64::from(key[1])
}

fn is_at(entries: &[Entry], place: u32, key: &KeyHash) -> bool {
    entries.get(place as usize).is_some_and(|entry| entry.key == *key)
}

fn slot_at(entries: &[Entry], place: u32) -> u64 {
    entries.get(place as usize).map_or(0, |entry| slot(&entry.key))
}

impl Shard {
    pub(super) fn find(&self, key: &KeyHash) -> Option<&Entry> {
        let place = self.places.find(slot(key), |place| is_at(&self.entries, *place, key))?;
        self.entries.get(*place as usize)
    }

    pub(super) fn find_mut(&mut self, key: &KeyHash) -> Option<&mut Entry> {
        let place = self.places.find(slot(key), |place| is_at(&self.entries, *place, key))?;
        self.entries.get_mut(*place as usize)
    }

    pub(super) fn insert(&mut self, new: Entry) {
        if let Some(entry) = self.find_mut(&new.key) {
            *entry = new;
            return;
        }
        // A shard is a part of some billions of objects at most.
        let Ok(place) = u32::try_from(self.entries.len()) else { return };
        if self.entries.len() == self.entries.capacity() {
            // An eighth at a time, and not as many again.
            self.entries.reserve_exact(self.entries.len() / 8 + 16);
        }
        self.entries.push(new);
        let entries = &self.entries;
        self.places.insert_unique(slot(&new.key), place, |place| slot_at(entries, *place));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        let before = self.entries.len();
        self.entries.retain(keep);
        if self.entries.len() < before {
            self.places.clear();
            for (place, entry) in (0u32..).zip(&self.entries) {
                self.places.insert_unique(slot(&entry.key), place, |place| slot_at(&self.entries, *place));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn an_entry_has_no_holes() {
        assert_eq!(size_of::<Entry>(), 48);
    }

    #[test]
    fn entries_are_found_after_others_came_and_went() {
        let (mut shard, mut model) = (Shard::default(), HashMap::new());
        // Keys whose first words, by which they are looked for, are few.
        let entry = |number: u32, position| {
            let key = [number % 5, number % 7, number % 311];
            Entry { key, sequence: [number; 5], e_tag: [0; 2], file: 0, position }
        };
        for round in 0..20 {
            for number in (0..1000).filter(|number| number % 20 != round) {
                let entry = entry(number * 7919 % 1009, round * 1000 + number);
                shard.insert(entry);
                model.insert(entry.key, entry.position);
            }
            if round % 3 == 2 {
                shard.retain(|entry| entry.position % 3 != 0);
                model.retain(|_, position| *position % 3 != 0);
            }
            if let Some(entry) = shard.find_mut(&[1, 1, 1]) {
                entry.position = round;
                model.insert([1, 1, 1], round);
            }
            assert_eq!(shard.iter().count(), model.len());
            for number in 0..1009 {
                let key = entry(number, 0).key;
                assert_eq!(shard.find(&key).map(|entry| entry.position), model.get(&key).copied(), "{key:?}");
            }
        }
    }
}
