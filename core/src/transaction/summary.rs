use std::collections::{BTreeMap, HashMap};

use iceberg::spec::{DataContentType, DataFile, Operation, Summary};

/// The operation, what is counted, and who wrote it: this is not for callers to tell.
pub(crate) fn is_reserved(name: &str) -> bool {
    let counts = ["added-", "deleted-", "removed-", "total-", "engine-"];
    matches!(name, "operation" | "changed-partition-count") || counts.iter().any(|start| name.starts_with(start))
}

/// The counts of a snapshot summary: what the snapshot adds and removes, and the table's totals after it.
#[derive(Debug)]
pub(super) struct SummaryBuilder {
    counts: BTreeMap<&'static str, u64>,
    /// `None` where the parent does not tell its total: unknown stays unknown.
    totals: BTreeMap<&'static str, Option<u64>>,
}

const TOTALS: [&str; 6] = [
    "total-records",
    "total-files-size",
    "total-data-files",
    "total-delete-files",
    "total-position-deletes",
    "total-equality-deletes",
];

impl SummaryBuilder {
    pub(super) fn new(parent: Option<&Summary>) -> Self {
        let total = |key: &'static str| match parent {
            None => Some(0),
            Some(parent) => parent.additional_properties.get(key).and_then(|text| text.parse().ok()),
        };
        Self { counts: BTreeMap::new(), totals: TOTALS.into_iter().map(|key| (key, total(key))).collect() }
    }

    fn count(&mut self, key: &'static str, n: u64) {
        *self.counts.entry(key).or_default() += n;
    }

    fn total(&mut self, key: &'static str, change: impl Fn(u64) -> Option<u64>) {
        if let Some(total) = self.totals.get_mut(key) {
            *total = total.and_then(change);
        }
    }

    pub(super) fn add(&mut self, file: &DataFile) {
        let (rows, bytes) = (file.record_count(), file.file_size_in_bytes());
        let plus = |n: u64| move |total: u64| total.checked_add(n);
        self.count("added-files-size", bytes);
        self.total("total-files-size", plus(bytes));
        match file.content_type() {
            DataContentType::Data => {
                self.count("added-data-files", 1);
                self.count("added-records", rows);
                self.total("total-data-files", plus(1));
                self.total("total-records", plus(rows));
            }
            DataContentType::PositionDeletes => {
                self.count("added-delete-files", 1);
                self.count("added-position-delete-files", 1);
                self.count("added-position-deletes", rows);
                self.total("total-delete-files", plus(1));
                self.total("total-position-deletes", plus(rows));
            }
            DataContentType::EqualityDeletes => {
                self.count("added-delete-files", 1);
                self.count("added-equality-delete-files", 1);
                self.count("added-equality-deletes", rows);
                self.total("total-delete-files", plus(1));
                self.total("total-equality-deletes", plus(rows));
            }
        }
    }

    pub(super) fn remove(&mut self, file: &DataFile) {
        let (rows, bytes) = (file.record_count(), file.file_size_in_bytes());
        let minus = |n: u64| move |total: u64| total.checked_sub(n);
        self.count("removed-files-size", bytes);
        self.total("total-files-size", minus(bytes));
        match file.content_type() {
            DataContentType::Data => {
                self.count("deleted-data-files", 1);
                self.count("deleted-records", rows);
                self.total("total-data-files", minus(1));
                self.total("total-records", minus(rows));
            }
            DataContentType::PositionDeletes => {
                self.count("removed-delete-files", 1);
                self.count("removed-position-delete-files", 1);
                self.count("removed-position-deletes", rows);
                self.total("total-delete-files", minus(1));
                self.total("total-position-deletes", minus(rows));
            }
            DataContentType::EqualityDeletes => {
                self.count("removed-delete-files", 1);
                self.count("removed-equality-delete-files", 1);
                self.count("removed-equality-deletes", rows);
                self.total("total-delete-files", minus(1));
                self.total("total-equality-deletes", minus(rows));
            }
        }
    }

    /// `properties` are the caller's own, none of them reserved.
    pub(super) fn build(self, operation: Operation, properties: HashMap<String, String>) -> Summary {
        let mut additional_properties = properties;
        additional_properties.extend(self.counts.into_iter().map(|(key, n)| (key.to_string(), n.to_string())));
        additional_properties
            .extend(self.totals.into_iter().filter_map(|(key, total)| Some((key.to_string(), total?.to_string()))));
        additional_properties.insert("engine-name".to_string(), "tarndb".to_string());
        additional_properties.insert("engine-version".to_string(), env!("CARGO_PKG_VERSION").to_string());
        Summary { operation, additional_properties }
    }
}
