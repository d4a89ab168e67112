use std::collections::HashMap;

use hashbrown::HashTable;

/// That by which an object is known: a part of a hash of 128 bits, of which two agree among a billion objects by a chance of one in
/// a hundred billion.
pub(super) type KeyHash = [u32; 3];

/// What is known of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: KeyHash,
    pub(super) sequence: [u32; 5],
    pub(super) content: Listed,
    /// At most [`Shard::LAST_FILE`].
    pub(super) file: u32,
    /// Of what is gone, the minute since 1970.
    pub(super) position: u32,
}

/// What a listing tells of an object, as far as it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Listed {
    /// A hash of the tag of its content.
    pub(super) e_tag: u32,
    /// When it was last modified, in seconds since 1970; the highest number where that is not known.
    pub(super) modified: u32,
    /// A number of its storage class, below 64; 0 where that is not known.
    pub(super) class: u8,
}

/// Which three words of a sequence number are kept, where the others are zero: those of no store have values in more.
const FORMS: [[usize; 3]; 10] =
    [[0, 1, 2], [0, 1, 3], [0, 1, 4], [0, 2, 3], [0, 2, 4], [0, 3, 4], [1, 2, 3], [1, 2, 4], [1, 3, 4], [2, 3, 4]];

/// The form of a sequence number that is kept whole, elsewhere.
const WHOLE: u32 = 15;

/// Where the form is, in the word of the file, and the storage class.
const FORM_AT: u32 = 28;
const CLASS_AT: u32 = 22;

/// An entry in 40 bytes, of words, so that no space is lost between them.
#[derive(Debug, Clone, Copy, Default)]
struct Packed {
    key: KeyHash,
    words: [u32; 3],
    e_tag: u32,
    modified: u32,
    /// Its number, and above it the storage class and the form of the sequence number.
    file: u32,
    position: u32,
}

impl Packed {
    fn file(&self) -> u32 {
        self.file & Shard::LAST_FILE
    }

    fn form(&self) -> u32 {
        self.file >> FORM_AT
    }

    fn set_file(&mut self, file: u32) {
        self.file = self.file & !Shard::LAST_FILE | file & Shard::LAST_FILE;
    }

    fn content(&self) -> Listed {
        Listed { e_tag: self.e_tag, modified: self.modified, class: (self.file >> CLASS_AT & 63) as u8 }
    }
}

/// The form of a sequence number, and the words that it keeps; `None` when it has values in more.
fn kept(sequence: &[u32; 5]) -> Option<(u32, [u32; 3])> {
    let values = sequence.iter().filter(|word| **word != 0).count();
    let has_all =
        |form: &[usize; 3]| form.iter().filter(|at| sequence.get(**at).is_some_and(|word| *word != 0)).count() == values;
    let (number, form) = (0u32..).zip(&FORMS).find(|(_, form)| has_all(form))?;
    Some((number, form.map(|at| sequence.get(at).copied().unwrap_or_default())))
}

/// Entries by their keys. Most lie close together, in the order of the keys, which are spread evenly; those that came last are few,
/// and are put among the others from time to time.
#[derive(Debug, Default)]
pub(super) struct Shard {
    sorted: Vec<Packed>,
    recent: HashTable<Packed>,
    /// Sequence numbers of which more than three words have values.
    whole: HashMap<KeyHash, [u32; 5]>,
}

fn slot(key: &KeyHash) -> u64 {
    u64::from(key[0]) << 32 | u64::from(key[1])
}

/// How many of `entries` have keys whose slots lie in so many slots, when they are spread evenly.
fn share(entries: &[Packed], slots: u64) -> usize {
    ((u128::from(slots) * entries.len() as u128) >> 64) as usize
}

/// The place of a key in entries that are sorted by it, near where it is expected.
fn place(entries: &[Packed], key: &KeyHash, near: usize) -> Option<usize> {
    /// Places between the one at which a key is expected and the next that is looked at.
    const STEP: usize = 4;
    let is_before = |at: usize| entries.get(at).is_some_and(|entry| entry.key < *key);
    let near = near.min(entries.len());
    let (mut low, mut high, mut step) = (near, near, STEP);
    while low > 0 && !is_before(low) {
        low = low.saturating_sub(step);
        step *= 2;
    }
    step = STEP;
    while is_before(high) {
        high = (high + step).min(entries.len());
        step *= 2;
    }
    let among = entries.get(low..entries.len().min(high + 1))?;
    among.binary_search_by(|entry| entry.key.cmp(key)).ok().map(|at| low + at)
}

impl Shard {
    /// The highest number of a file.
    pub(super) const LAST_FILE: u32 = (1 << CLASS_AT) - 1;

    /// Of the entries, so many are recent at most; at the beginning, [`Self::FEW`].
    const RECENT_PART: usize = 32;
    const FEW: usize = 64;

    /// Where a key is expected, as far as that is known without a look at others.
    pub(super) fn near(&self, key: &KeyHash) -> usize {
        share(&self.sorted, slot(key))
    }

    /// Where it is expected from the key that is there: in a part of the entries their number differs less from what is expected.
    pub(super) fn nearer(&self, key: &KeyHash, near: usize) -> usize {
        let Some(found) = self.sorted.get(near) else { return near };
        let (wanted, found) = (slot(key), slot(&found.key));
        let away = share(&self.sorted, wanted.abs_diff(found));
        if wanted < found { near.saturating_sub(away) } else { (near + away).min(self.sorted.len() - 1) }
    }

    fn packed(&self, key: &KeyHash, near: usize) -> Option<&Packed> {
        let recent = self.recent.find(slot(key), |entry| entry.key == *key);
        recent.or_else(|| self.sorted.get(place(&self.sorted, key, near)?))
    }

    fn packed_mut(&mut self, key: &KeyHash, near: usize) -> Option<&mut Packed> {
        let Self { sorted, recent, .. } = self;
        match recent.find_mut(slot(key), |entry| entry.key == *key) {
            Some(entry) => Some(entry),
            None => place(sorted, key, near).and_then(|at| sorted.get_mut(at)),
        }
    }

    /// The entry of a key, which is looked for near where it is expected.
    pub(super) fn find(&self, key: &KeyHash, near: usize) -> Option<Entry> {
        let packed = self.packed(key, near)?;
        let sequence = match FORMS.get(packed.form() as usize) {
            Some(form) => {
                let mut sequence = [0; 5];
                for (at, word) in form.iter().zip(packed.words) {
                    if let Some(place) = sequence.get_mut(*at) {
                        *place = word;
                    }
                }
                sequence
            }
            None => *self.whole.get(key)?,
        };
        Some(Entry { key: *key, sequence, content: packed.content(), file: packed.file(), position: packed.position })
    }

    /// As [`Shard::find`]: the entry of its key is this one from now on.
    pub(super) fn insert(&mut self, Entry { key, sequence, content, file, position }: Entry, near: usize) {
        let Listed { e_tag, modified, class } = content;
        let (form, words) = kept(&sequence).unwrap_or((WHOLE, [0; 3]));
        let file = form << FORM_AT | u32::from(class & 63) << CLASS_AT | file & Self::LAST_FILE;
        let new = Packed { key, words, e_tag, modified, file, position };
        if form == WHOLE {
            self.whole.insert(key, sequence);
        } else if !self.whole.is_empty() {
            self.whole.remove(&key);
        }
        if let Some(entry) = self.packed_mut(&key, near) {
            *entry = new;
            return;
        }
        self.recent.insert_unique(slot(&key), new, |entry| slot(&entry.key));
        if self.recent.len() > Self::FEW.max(self.sorted.len() / Self::RECENT_PART) {
            self.sort_recent();
        }
    }

    /// Puts the recent entries among the others.
    fn sort_recent(&mut self) {
        let mut recent: Vec<Packed> = self.recent.drain().collect();
        recent.sort_unstable_by_key(|entry| entry.key);
        let mut end = self.sorted.len();
        self.sorted.reserve_exact(recent.len());
        self.sorted.resize(end + recent.len(), Packed::default());
        // From the last on, so that each moves once.
        for (before, new) in recent.iter().enumerate().rev() {
            let at = self.sorted.get(..end).map_or(0, |rest| rest.partition_point(|entry| entry.key < new.key));
            self.sorted.copy_within(at..end, at + before + 1);
            if let Some(place) = self.sorted.get_mut(at + before) {
                *place = *new;
            }
            end = at;
        }
    }

    /// As [`Shard::find`]: gives the object of a key, if it is known, another place when its file is one of some; whether it did.
    pub(super) fn set_place(
        &mut self,
        key: &KeyHash,
        near: usize,
        is_from: impl Fn(u32) -> bool,
        file: u32,
        position: u32,
    ) -> bool {
        let Some(entry) = self.packed_mut(key, near).filter(|entry| is_from(entry.file())) else { return false };
        entry.set_file(file);
        entry.position = position;
        true
    }

    /// How far from where it is expected the entry of a key is; of one that came last, nobody expects anything.
    #[cfg(test)]
    pub(super) fn away(&self, key: &KeyHash, near: usize) -> Option<usize> {
        place(&self.sorted, key, near).map(|at| at.abs_diff(near))
    }

    /// The keys, with the numbers of their files, and their positions.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&KeyHash, u32, u32)> {
        self.sorted.iter().chain(&self.recent).map(|entry| (&entry.key, entry.file(), entry.position))
    }

    /// Keeps the entries of which this is true for the number of their file, and their position.
    pub(super) fn retain(&mut self, keep: impl Fn(u32, u32) -> bool) {
        let Self { sorted, recent, whole } = self;
        let mut keeps = |entry: &Packed| {
            let is_kept = keep(entry.file(), entry.position);
            if !is_kept && entry.form() == WHOLE {
                whole.remove(&entry.key);
            }
            is_kept
        };
        sorted.retain(&mut keeps);
        recent.retain(|entry| keeps(entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(shard: &Shard, key: &KeyHash) -> Option<Entry> {
        shard.find(key, shard.near(key))
    }

    fn insert(shard: &mut Shard, entry: Entry) {
        shard.insert(entry, shard.nearer(&entry.key, shard.near(&entry.key)));
    }

    #[test]
    fn an_entry_has_no_holes() {
        assert_eq!(size_of::<Packed>(), 40);
    }

    #[test]
    fn sequence_numbers_are_kept_whatever_they_are() {
        let mut shard = Shard::default();
        for values in 0..1u32 << 10 {
            // Each word is 0, small, large, or all ones.
            let sequence = [0, 1, 2, 3, 4].map(|word| [0, 7 + word, 0x8000_0001, u32::MAX][(values >> (2 * word)) as usize % 4]);
            for (key, file) in [([values; 3], Shard::LAST_FILE), ([0; 3], 3)] {
                let content = Listed { e_tag: values, modified: !values, class: (values % 64) as u8 };
                let entry = Entry { key, sequence, content, file, position: u32::MAX };
                insert(&mut shard, entry);
                assert_eq!(found(&shard, &key), Some(entry));
            }
        }
        shard.retain(|file, _| file == 3);
        assert_eq!((shard.iter().count(), shard.whole.len()), (1, 1));
        insert(&mut shard, Entry { key: [0; 3], sequence: [0, 0, 0, 0, 5], content: Listed::default(), file: 0, position: 0 });
        assert!(shard.whole.is_empty());
    }

    #[test]
    fn keys_are_found_wherever_they_are() {
        for is_even in [true, false] {
            let mut shard = Shard::default();
            // Spread as hashes are, and all in one place.
            let key =
                |number: u32| if is_even { [number.wrapping_mul(2_654_435_761), number, 1] } else { [7, number / 3, number % 3] };
            for number in 0..20_000 {
                insert(
                    &mut shard,
                    Entry { key: key(number), sequence: [0; 5], content: Listed::default(), file: 1, position: number },
                );
            }
            for number in 0..20_000 {
                assert_eq!(found(&shard, &key(number)).unwrap().position, number);
            }
            assert!((20_000..30_000).all(|number| found(&shard, &key(number)).is_none()));
            assert!(shard.sorted.is_sorted_by_key(|entry| entry.key) && shard.sorted.len() > 19_000);
        }
    }

    #[test]
    fn entries_are_found_after_others_came_and_went() {
        let (mut shard, mut model) = (Shard::default(), HashMap::new());
        // Keys whose first words, by which they are looked for, are few.
        let entry = |number: u32, position| {
            let key = [number % 5, number % 7, number % 311];
            Entry { key, sequence: [number; 5], content: Listed { class: 63, ..Listed::default() }, file: number % 2, position }
        };
        for round in 0..20 {
            for number in (0..1000).filter(|number| number % 20 != round) {
                let entry = entry(number * 7919 % 1009, round * 1000 + number);
                insert(&mut shard, entry);
                model.insert(entry.key, entry);
            }
            if round % 3 == 2 {
                shard.retain(|_, position| position % 3 != 0);
                model.retain(|_, entry| entry.position % 3 != 0);
            }
            let near = shard.near(&[1, 1, 1]);
            shard.set_place(&[1, 1, 1], near, |file| file == 1, 1, round);
            if let Some(entry) = model.get_mut(&[1, 1, 1]).filter(|entry| entry.file == 1) {
                entry.position = round;
            }
            assert_eq!(shard.iter().count(), model.len());
            for number in 0..1009 {
                let key = entry(number, 0).key;
                assert_eq!(found(&shard, &key), model.get(&key).copied(), "{key:?}");
            }
        }
    }
}
