use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use tarndb_core::Result;

use super::rows::{batch, maps, texts};
use super::{ObjectId, Sequence};
use crate::extract::{Annotation, Pairs};

/// What was learnt, and of which content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Annotated {
    pub(crate) e_tag: Option<String>,
    pub(crate) annotation: Annotation,
}

/// Rows of the table `annotations`, of the time `now` in microseconds since 1970.
pub(crate) fn annotation_rows<'a>(
    bucket: &str,
    now: i64,
    rows: impl Iterator<Item = (&'a ObjectId, Sequence, &'a Annotated)>,
) -> Result<RecordBatch> {
    let rows: Vec<(&ObjectId, Sequence, &Annotated)> = rows.collect();
    let learnt = || rows.iter().map(|(_, _, annotated)| &annotated.annotation);
    let text = |of: fn(&Annotation) -> &Option<String>| texts(learnt().map(|learnt| of(learnt).as_deref()));
    let int = |of: fn(&Annotation) -> Option<i32>| Arc::new(learnt().map(of).collect::<Int32Array>()) as ArrayRef;
    let long = |of: fn(&Annotation) -> Option<i64>| Arc::new(learnt().map(of).collect::<Int64Array>()) as ArrayRef;
    let map = |of: fn(&Annotation) -> Option<&Pairs>| maps(learnt().map(of));
    batch(vec![
        ("bucket", Arc::new(StringArray::from_iter_values(rows.iter().map(|_| bucket)))),
        ("key", Arc::new(StringArray::from_iter_values(rows.iter().map(|(id, _, _)| &id.key)))),
        ("sequence_number", Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, sequence, _)| sequence.text())))),
        ("version_id", texts(rows.iter().map(|(id, _, _)| id.version.as_deref()))),
        ("e_tag", texts(rows.iter().map(|(_, _, annotated)| annotated.e_tag.as_deref()))),
        ("annotated_at", Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|_| now)))),
        ("media_type", text(|learnt| &learnt.media_type)),
        ("image_width", int(|learnt| learnt.image_width)),
        ("image_height", int(|learnt| learnt.image_height)),
        ("exif", map(|learnt| learnt.exif.as_ref())?),
        ("parquet_rows", long(|learnt| learnt.parquet_rows)),
        ("parquet_columns", map(|learnt| learnt.parquet_columns.as_ref())?),
        ("text_lines", long(|learnt| learnt.text_lines)),
        ("text_encoding", text(|learnt| &learnt.text_encoding)),
        ("attributes", map(|learnt| Some(&learnt.attributes))?),
        ("errors", map(|learnt| Some(&learnt.errors))?),
    ])
}
