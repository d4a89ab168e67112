/// Which keys of a source an index is about: those that end in one of these, or all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeyFilter {
    suffixes: Vec<String>,
}

impl KeyFilter {
    /// Keys that end in one of `suffixes`; all, when there are none.
    pub(crate) fn new(suffixes: Vec<String>) -> Self {
        Self { suffixes }
    }

    pub(crate) fn keeps(&self, key: &str) -> bool {
        self.suffixes.is_empty() || self.suffixes.iter().any(|suffix| key.ends_with(suffix.as_str()))
    }
}
