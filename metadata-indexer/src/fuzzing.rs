//! What `fuzz/` calls: what decodes bytes of senders. Only there with the feature `fuzzing`.

use std::hint::black_box;

use crate::event;

/// A message about objects.
pub fn object_event(bytes: &[u8]) {
    drop(black_box(event::parse(bytes)));
}
