use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use futures::TryStreamExt;
use roaring::RoaringTreemap;
use tarndb_core::{Lakehouse, Result, Table};
use twox_hash::{XxHash3_64, XxHash3_128};

use super::new_file::NewFile;
use super::shard::{Entry, KeyHash, Listed, Shard};
use crate::record::{ObjectId, ObjectState, Sequence, missing, text};

/// Tables that the index is divided into, so that one that grows is a small part of it.
const SHARDS: usize = 64;

/// Keys that are looked for at once: what is found of all of them stays near the processor.
const AT_ONCE: usize = 256;

/// Stands for the data file of what is gone.
const GONE: u32 = Shard::LAST_FILE;

/// Objects that are remembered to be gone at most: of buckets whose objects live for a moment there would be more of them than of others.
const GONE_AT_MOST: usize = 1_000_000;

const MINUTE: i64 = 60_000_000;

/// Storage classes that stores have, by the number that is remembered; others have one of those that follow.
const CLASSES: [&str; 24] = [
    "STANDARD",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER",
    "GLACIER_IR",
    "DEEP_ARCHIVE",
    "REDUCED_REDUNDANCY",
    "EXPRESS_ONEZONE",
    "OUTPOSTS",
    "SNOW",
    "FSX_OPENZFS",
    "FSX_ONTAP",
    "NEARLINE",
    "COLDLINE",
    "ARCHIVE",
    "MULTI_REGIONAL",
    "REGIONAL",
    "DURABLE_REDUCED_AVAILABILITY",
    "Hot",
    "Cool",
    "Cold",
    "Archive",
    "Premium",
];

/// Where the rows of the inventory are: what a new change of an object needs to know of it. And for a while, of objects that are
/// gone, when they went: what is told late of them is older.
#[derive(Debug)]
pub(super) struct KeyIndex {
    shards: Vec<Shard>,
    /// The data files of the inventory that were read, and their numbers.
    files: Vec<String>,
    numbers: HashMap<String, u32>,
    /// Numbers of files of which no row is left.
    free: Vec<u32>,
    /// Files of which rows were left when that was looked at last.
    used: usize,
    /// Objects that went since those that are gone were counted last.
    gone: usize,
    gone_at_most: usize,
}

/// What is known of an object that is in the inventory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    content: Listed,
    file: u32,
    position: u32,
}

/// What is known of an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct LookedUp {
    pub(super) key: KeyHash,
    /// The newest change, whether it is there or gone.
    pub(super) newest: Option<Sequence>,
    /// As the inventory has it.
    pub(super) known: Option<Known>,
}

/// That by which an object is known.
pub(super) fn hash(id: &ObjectId) -> KeyHash {
    hash_of(&id.key, id.version.as_deref())
}

/// As [`hash`], of the parts of an id.
pub(super) fn hash_of(key: &str, version: Option<&str>) -> KeyHash {
    let seed = version.map_or(0, |version| XxHash3_64::oneshot(version.as_bytes()));
    let hash = XxHash3_128::oneshot_with_seed(seed, key.as_bytes());
    [(hash >> 64) as u32, (hash >> 32) as u32, hash as u32]
}

fn e_tag_hash(e_tag: Option<&str>) -> [u32; 2] {
    let hash = e_tag.map_or(0, |e_tag| XxHash3_64::oneshot(e_tag.as_bytes()));
    [(hash >> 32) as u32, hash as u32]
}

/// That by which a content of an object is known.
pub(super) fn content_hash(id: &ObjectId, e_tag: Option<&str>) -> KeyHash {
    let ([first, second, third], [high, low]) = (hash(id), e_tag_hash(e_tag));
    [first ^ high, second ^ low, third]
}

fn class_number(class: &str) -> u8 {
    let known = CLASSES.iter().position(|known| *known == class);
    let number = known.unwrap_or_else(|| CLASSES.len() + XxHash3_64::oneshot(class.as_bytes()) as usize % (63 - CLASSES.len()));
    u8::try_from(number + 1).unwrap_or(0)
}

/// `modified` is in microseconds since 1970.
fn listed(e_tag: Option<&str>, modified: Option<i64>, class: Option<&str>) -> Listed {
    let seconds = |micros: i64| u32::try_from(micros.div_euclid(1_000_000)).ok();
    Listed {
        e_tag: e_tag_hash(e_tag)[1],
        modified: modified.and_then(seconds).unwrap_or(u32::MAX),
        class: class.map_or(0, class_number),
    }
}

impl LookedUp {
    /// Whether all that is known of it came before a change.
    pub(super) fn is_before(&self, change: Sequence) -> bool {
        self.newest.is_none_or(|newest| newest < change)
    }
}

impl Known {
    fn of(Entry { content, file, position, .. }: Entry) -> Self {
        Self { content, file, position }
    }

    pub(super) fn has_e_tag(self, e_tag: Option<&str>) -> bool {
        self.content.e_tag == e_tag_hash(e_tag)[1]
    }

    /// Whether nothing happened to the object since that was known, as far as this tells, which a listing says. A store's events tell
    /// of times that are later than those of its listings, if they differ, and of no storage class.
    pub(super) fn is_as_listed(self, state: &ObjectState) -> bool {
        let (known, now) = (self.content, listed(state.e_tag.as_deref(), state.last_modified, state.storage_class.as_deref()));
        let is_newer = now.modified != u32::MAX && now.modified > known.modified;
        let is_other_class = known.class != 0 && now.class != 0 && known.class != now.class;
        known.e_tag == now.e_tag && !is_newer && !is_other_class
    }

    /// Whether the tag of the content and the time of its modification are these.
    pub(super) fn is_same(self, state: &ObjectState) -> bool {
        let now = listed(state.e_tag.as_deref(), state.last_modified, None);
        (self.content.e_tag, self.content.modified) == (now.e_tag, now.modified)
    }
}

impl Default for KeyIndex {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            files: Vec::new(),
            numbers: HashMap::new(),
            free: Vec::new(),
            used: 0,
            gone: 0,
            gone_at_most: GONE_AT_MOST,
        }
    }
}

impl KeyIndex {
    fn shard(key: &KeyHash) -> usize {
        key[2] as usize % SHARDS
    }

    /// What keys are sorted by where they are in the order of this index.
    pub(super) fn order(key: &KeyHash) -> (usize, KeyHash) {
        (Self::shard(key), *key)
    }

    /// Where in their shards keys are expected. What is looked at for all of them at once is asked of memory at once: each of millions is
    /// somewhere else, and what takes the time is to wait for it.
    fn near(&self, keys: &[KeyHash]) -> Vec<usize> {
        /// Each is nearer by a square root, for hashes are spread evenly: of a million entries, one is found in its place or in the next.
        const ROUNDS: usize = 3;
        let shard = |key: &KeyHash| self.shards.get(Self::shard(key));
        let mut near: Vec<usize> = keys.iter().map(|key| shard(key).map_or(0, |shard| shard.near(key))).collect();
        for _ in 0..ROUNDS {
            for (key, near) in keys.iter().zip(&mut near) {
                *near = shard(key).map_or(0, |shard| shard.nearer(key, *near));
            }
        }
        near
    }

    fn find(&self, keys: &[KeyHash]) -> Vec<Option<Entry>> {
        let mut found = Vec::with_capacity(keys.len());
        for keys in keys.chunks(AT_ONCE) {
            let entry = |(key, near): (&KeyHash, usize)| self.shards.get(Self::shard(key))?.find(key, near);
            found.extend(keys.iter().zip(self.near(keys)).map(entry));
        }
        found
    }

    fn insert(&mut self, entries: &[Entry]) {
        for entries in entries.chunks(AT_ONCE) {
            let keys: Vec<KeyHash> = entries.iter().map(|entry| entry.key).collect();
            for (entry, near) in entries.iter().zip(self.near(&keys)) {
                if let Some(shard) = self.shards.get_mut(Self::shard(&entry.key)) {
                    shard.insert(*entry, near);
                }
            }
        }
    }

    /// What is known of objects, in their order.
    pub(super) fn look_up<'a>(&self, ids: impl Iterator<Item = &'a ObjectId>) -> Vec<LookedUp> {
        let keys: Vec<KeyHash> = ids.map(hash).collect();
        let found = self.find(&keys);
        let looked_up = |(key, found): (KeyHash, Option<Entry>)| LookedUp {
            key,
            newest: found.map(|entry| Sequence::of_words(entry.sequence)),
            known: found.filter(|entry| entry.file != GONE).map(Known::of),
        };
        keys.into_iter().zip(found).map(looked_up).collect()
    }

    /// The object as the inventory has it.
    pub(super) fn get(&self, id: &ObjectId) -> Option<Known> {
        self.look_up([id].into_iter()).pop()?.known
    }

    /// The newest change that is known of the object, whether it is there or gone.
    pub(super) fn newest(&self, id: &ObjectId) -> Option<Sequence> {
        self.look_up([id].into_iter()).pop()?.newest
    }

    /// Remembers that objects are gone since changes at these times, in microseconds since 1970.
    pub(super) fn set_gone<'a>(&mut self, gone: impl Iterator<Item = (&'a ObjectId, Sequence, i64)>) {
        let minute = |time: i64| u32::try_from(time.div_euclid(MINUTE)).unwrap_or(0);
        let entry = |(id, sequence, time): (&ObjectId, Sequence, i64)| Entry {
            key: hash(id),
            sequence: sequence.words(),
            content: Listed::default(),
            file: GONE,
            position: minute(time),
        };
        let entries: Vec<Entry> = gone.map(entry).collect();
        self.insert(&entries);
        self.gone += entries.len();
    }

    /// Forgets what is gone since before a time in microseconds since 1970.
    pub(super) fn forget_gone_before(&mut self, time: i64) {
        let minute = u32::try_from(time.div_euclid(MINUTE)).unwrap_or(0);
        for shard in &mut self.shards {
            shard.retain(|file, position| file != GONE || position >= minute);
        }
    }

    /// Forgets what is gone for longest when it is too much. What is gone is known since the time that this returns, in microseconds
    /// since 1970; `None` when nothing was forgotten.
    pub(super) fn bound_gone(&mut self) -> Option<i64> {
        if self.gone <= self.gone_at_most / 4 {
            return None;
        }
        self.gone = 0;
        let mut minutes = BTreeMap::new();
        for (_, _, minute) in self.shards.iter().flat_map(Shard::iter).filter(|(_, file, _)| *file == GONE) {
            *minutes.entry(minute).or_insert(0usize) += 1;
        }
        if minutes.values().sum::<usize>() <= self.gone_at_most {
            return None;
        }
        let mut kept = 0;
        let fits = |(_, count): &(&u32, &usize)| {
            kept += **count;
            kept <= self.gone_at_most / 2
        };
        // Of a minute with more than all that, nothing.
        let first = minutes.iter().rev().take_while(fits).last().map(|(minute, _)| *minute);
        let since = first.or_else(|| minutes.last_key_value().map(|(minute, _)| minute + 1))?;
        let since = i64::from(since) * MINUTE;
        self.forget_gone_before(since);
        Some(since)
    }

    /// The places of rows, by data file.
    pub(super) fn places(&self, known: impl Iterator<Item = Known>) -> BTreeMap<String, RoaringTreemap> {
        let mut places: HashMap<u32, RoaringTreemap> = HashMap::new();
        for Known { file, position, .. } in known {
            places.entry(file).or_default().insert(position.into());
        }
        let named = |(file, places): (u32, RoaringTreemap)| Some((self.files.get(file as usize)?.clone(), places));
        places.into_iter().filter_map(named).collect()
    }

    /// Reads the data files of the inventory that were not read yet; the highest sequence number in them.
    pub(super) async fn read_new_files(&mut self, lake: &Lakehouse, inventory: &Table) -> Result<Option<Sequence>> {
        const COLUMNS: [&str; 8] =
            ["key", "version_id", "sequence_number", "e_tag", "last_modified_date", "storage_class", "_file", "_pos"];
        let read = self.numbers.keys().cloned().collect();
        let mut rows = lake.scan_other_files(inventory, &COLUMNS.map(str::to_string), read).await?;
        let mut highest = None;
        while let Some(batch) = rows.try_next().await? {
            let (keys, sequences, e_tags) = (text(&batch, "key")?, text(&batch, "sequence_number")?, text(&batch, "e_tag")?);
            let (versions, files) = (text(&batch, "version_id")?, text(&batch, "_file")?);
            let classes = text(&batch, "storage_class")?;
            let modified = batch.column_by_name("last_modified_date");
            let modified = modified.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
            let modified = modified.ok_or_else(|| missing("last_modified_date"))?;
            let positions = batch.column_by_name("_pos").and_then(|column| column.as_primitive_opt::<Int64Type>());
            let positions = positions.ok_or_else(|| missing("_pos"))?;
            let mut entries = Vec::with_capacity(batch.num_rows());
            for row in 0..batch.num_rows() {
                let file = match self.numbers.get(files.value(row)) {
                    Some(number) => *number,
                    None => self.add_file(files.value(row))?,
                };
                let sequence = Sequence::parse(sequences.value(row))?;
                let position = u32::try_from(positions.value(row)).map_err(|_| missing("_pos"))?;
                let content = listed(
                    e_tags.is_valid(row).then(|| e_tags.value(row)),
                    modified.is_valid(row).then(|| modified.value(row)),
                    classes.is_valid(row).then(|| classes.value(row)),
                );
                let key = hash_of(keys.value(row), versions.is_valid(row).then(|| versions.value(row)));
                entries.push(Entry { key, sequence: sequence.words(), content, file, position });
                highest = highest.max(Some(sequence));
            }
            self.insert(&entries);
        }
        Ok(highest)
    }

    fn add_file(&mut self, file: &str) -> Result<u32> {
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                let number = u32::try_from(self.files.len()).ok().filter(|number| *number < GONE);
                self.files.push(String::new());
                number.ok_or_else(|| missing("_file"))?
            }
        };
        if let Some(place) = self.files.get_mut(number as usize) {
            *place = file.to_string();
        }
        self.numbers.insert(file.to_string(), number);
        Ok(number)
    }

    /// The numbers of data files, as far as they are known.
    pub(super) fn numbers_of(&self, files: &HashSet<String>) -> HashSet<u32> {
        files.iter().filter_map(|file| self.numbers.get(file).copied()).collect()
    }

    /// Finds the rows of the files `old` in new ones from now on. The positions of rows of the new files of which the object is in none
    /// of `old`: it changed, or went, after these were read.
    pub(super) fn move_to(&mut self, old: &HashSet<u32>, new: Vec<NewFile>) -> Result<BTreeMap<String, RoaringTreemap>> {
        let mut left = BTreeMap::new();
        for NewFile { location, rows } in new {
            let number = self.add_file(&location)?;
            let mut positions = RoaringTreemap::new();
            for rows in rows.chunks(AT_ONCE) {
                let keys: Vec<KeyHash> = rows.iter().map(|(key, _)| *key).collect();
                for ((key, position), near) in rows.iter().zip(self.near(&keys)) {
                    let shard = self.shards.get_mut(Self::shard(key));
                    if !shard.is_some_and(|shard| shard.set_place(key, near, |file| old.contains(&file), number, *position)) {
                        positions.insert(u64::from(*position));
                    }
                }
            }
            left.insert(location, positions);
        }
        self.forget_files(old);
        Ok(left)
    }

    /// Forgets files of which no row is left, when there may be many: all entries are looked at.
    pub(super) fn forget_empty_files(&mut self) {
        const FEW: usize = 256;
        if self.numbers.len() < FEW + 2 * self.used {
            return;
        }
        let mut is_used = vec![false; self.files.len()];
        for (_, file, _) in self.shards.iter().flat_map(Shard::iter) {
            if let Some(used) = is_used.get_mut(file as usize) {
                *used = true;
            }
        }
        let is_empty = |number: u32| !is_used.get(number as usize).copied().unwrap_or(true);
        let empty = self.numbers.values().copied().filter(|number| is_empty(*number)).collect();
        self.forget_files(&empty);
        self.used = self.numbers.len();
    }

    fn forget_files(&mut self, files: &HashSet<u32>) {
        self.numbers.retain(|_, number| !files.contains(number));
        for number in files {
            if let Some(place) = self.files.get_mut(*number as usize) {
                *place = String::new();
            }
            self.free.push(*number);
        }
    }

    /// Whether all objects of the inventory are among those of which the hashes are in `seen`.
    pub(super) fn all_in(&self, seen: &HashSet<KeyHash>) -> bool {
        self.shards.iter().flat_map(Shard::iter).all(|(key, file, _)| file == GONE || seen.contains(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_remembered_for_a_while() {
        let mut keys = KeyIndex::default();
        let version = |version: &str| ObjectId { key: "a".to_string(), version: Some(version.to_string()) };
        let ids = [ObjectId::of_key("a"), ObjectId::of_key("b"), version("1"), version("2")];
        for (number, id) in ids.iter().enumerate() {
            assert_eq!(keys.newest(id), None);
            keys.set_gone([(id, Sequence::of_time(number as u64), MINUTE * number as i64)].into_iter());
        }
        for (number, id) in ids.iter().enumerate() {
            assert_eq!(keys.newest(id), Some(Sequence::of_time(number as u64)));
            assert!(keys.get(id).is_none());
        }
        assert!(keys.all_in(&HashSet::new()));
        keys.forget_gone_before(2 * MINUTE);
        assert_eq!(ids.each_ref().map(|id| keys.newest(id).is_some()), [false, false, true, true]);
    }

    #[test]
    fn of_what_is_gone_what_went_last_is_remembered() {
        let mut keys = KeyIndex { gone_at_most: 1000, ..KeyIndex::default() };
        let id = |number: i64| ObjectId::of_key(number.to_string());
        let mut since = i64::MIN;
        for number in 0..5000 {
            keys.set_gone([(&id(number), Sequence::of_time(1), MINUTE * (number / 10))].into_iter());
            since = since.max(keys.bound_gone().unwrap_or(i64::MIN));
            assert!(keys.shards.iter().flat_map(Shard::iter).count() <= 1251, "after {number}");
        }
        assert!((MINUTE * 375..MINUTE * 480).contains(&since), "{since}");
        for number in 0..5000 {
            assert_eq!(keys.newest(&id(number)).is_some(), MINUTE * (number / 10) >= since, "{number}");
        }
        // All in one minute.
        let mut keys = KeyIndex { gone_at_most: 100, ..KeyIndex::default() };
        let bounds: Vec<i64> = (0..200)
            .filter_map(|number| {
                keys.set_gone([(&id(number), Sequence::of_time(1), MINUTE * 7)].into_iter());
                keys.bound_gone()
            })
            .collect();
        assert_eq!(bounds, [MINUTE * 8]);
    }

    #[test]
    fn listings_tell_what_happened_without_an_event() {
        let state = |e_tag: &str, second: i64, class: Option<&str>| ObjectState {
            e_tag: Some(e_tag.to_string()),
            last_modified: Some(second * 1_000_000 + 345),
            storage_class: class.map(str::to_string),
            ..ObjectState::default()
        };
        let known = |state: &ObjectState| {
            let content = listed(state.e_tag.as_deref(), state.last_modified, state.storage_class.as_deref());
            Known { content, file: 0, position: 0 }
        };
        let told = known(&state("a", 100, None));
        assert!(told.is_as_listed(&state("a", 100, Some("STANDARD"))) && told.is_as_listed(&state("a", 99, None)));
        assert!(!told.is_as_listed(&state("b", 99, None)) && !told.is_as_listed(&state("a", 101, None)));
        let looked = known(&state("a", 100, Some("STANDARD")));
        assert!(!looked.is_as_listed(&state("a", 100, Some("GLACIER"))) && looked.is_as_listed(&state("a", 100, None)));
        assert!(known(&ObjectState::default()).is_as_listed(&ObjectState { last_modified: Some(5), ..ObjectState::default() }));
        assert!(!told.is_same(&state("a", 99, None)) && told.is_same(&state("a", 100, Some("GLACIER"))));
        let numbers: HashSet<u8> = CLASSES.iter().map(|class| class_number(class)).collect();
        assert!(numbers.len() == CLASSES.len() && !numbers.contains(&0));
        assert!(
            (1..64).contains(&class_number("a class of tomorrow")) && !numbers.contains(&class_number("a class of tomorrow"))
        );
    }

    #[test]
    fn rows_move_to_new_files_unless_they_changed() {
        const ROWS: u64 = 10_000;
        let mut keys = KeyIndex::default();
        let (old, other) = (keys.add_file("old").unwrap(), keys.add_file("other").unwrap());
        let id = |number: u64| ObjectId::of_key(number.to_string());
        for number in 0..ROWS {
            let file = if number % 7 == 0 { other } else { old };
            let (content, position) = (Listed::default(), number as u32);
            keys.insert(&[Entry { key: hash(&id(number)), sequence: [0; 5], content, file, position }]);
            if number % 11 == 0 {
                keys.set_gone([(&id(number), Sequence::of_time(1), MINUTE)].into_iter());
            }
        }
        let object_at = |position: u64| position * 7919 % ROWS;
        let mut rows: Vec<(KeyHash, u32)> = (0..ROWS).map(|at| (hash(&id(object_at(at))), at as u32)).collect();
        // One that is not known at all.
        rows.push((hash(&id(ROWS)), ROWS as u32));
        let left = keys.move_to(&HashSet::from([old]), vec![NewFile { location: "new".to_string(), rows }]).unwrap();
        let is_left = |at: &u64| *at == ROWS || object_at(*at) % 7 == 0 || object_at(*at) % 11 == 0;
        assert_eq!(left, BTreeMap::from([("new".to_string(), (0..=ROWS).filter(is_left).collect())]));
        let ids: Vec<ObjectId> = (0..ROWS).map(id).collect();
        let places = keys.places(keys.look_up(ids.iter()).into_iter().filter_map(|found| found.known));
        let others = (0..ROWS).filter(|number| number % 7 == 0 && number % 11 != 0).collect();
        let moved = (0..ROWS).filter(|at| !is_left(at)).collect();
        assert_eq!(places, BTreeMap::from([("other".to_string(), others), ("new".to_string(), moved)]));
        assert!(keys.numbers_of(&HashSet::from(["old".to_string()])).is_empty());
    }

    #[test]
    fn keys_are_expected_where_they_are() {
        const OBJECTS: u32 = 200_000;
        let mut keys = KeyIndex::default();
        let ids: Vec<ObjectId> = (0..OBJECTS).map(|number| ObjectId::of_key(format!("folder/{number}"))).collect();
        let entry = |id: &ObjectId, position: u32| {
            let (content, sequence) = (Listed::default(), Sequence::of_time(position.into()).words());
            Entry { key: hash(id), sequence, content, file: 0, position }
        };
        // All twice, of which the second time is the one that counts; some of them at once.
        let entries = ids.iter().zip(0..).flat_map(|(id, number)| [entry(id, number), entry(id, OBJECTS + number)]);
        keys.insert(&entries.collect::<Vec<_>>());
        let unknown = ObjectId::of_key("another");
        let looked_up = keys.look_up(ids.iter().chain([&unknown]));
        for ((id, found), number) in ids.iter().zip(&looked_up).zip(0..) {
            assert_eq!((found.key, found.known.unwrap().position), (hash(id), OBJECTS + number));
            assert_eq!(found.newest, Some(Sequence::of_time((OBJECTS + number).into())));
        }
        assert!(looked_up[ids.len()].newest.is_none() && looked_up[ids.len()].known.is_none());
        // Not many are looked at before one is found.
        let hashes: Vec<KeyHash> = ids.iter().map(hash).collect();
        let mut away: Vec<usize> = hashes
            .iter()
            .zip(keys.near(&hashes))
            .filter_map(|(key, near)| keys.shards[KeyIndex::shard(key)].away(key, near))
            .collect();
        away.sort_unstable();
        assert!(away.len() > ids.len() / 2 && away[away.len() / 2] <= 1 && away[away.len() - 1] < 64, "{:?}", away.last());
    }
}
