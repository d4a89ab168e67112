use crate::event::EventHook;
use crate::extract::Extractors;
use crate::feed::EventSource;
use crate::registry::Registry;

/// What users bring of their own, which options of indexes name. Copies are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Own {
    pub(crate) extractors: Extractors,
    pub(crate) sources: Registry<dyn EventSource>,
    pub(crate) hooks: Registry<dyn EventHook>,
}
