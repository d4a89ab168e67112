//! The format library passes over defaults that it cannot read. A column without its default would be read wrongly, and lose the
//! default for ever with the next commit.

use iceberg::spec::TableMetadata;
use serde_json::Value;

use crate::{Error, Result};

const KEYS: [&str; 2] = ["initial-default", "write-default"];

/// Whether the text may hold defaults.
pub(super) fn may_have(text: &[u8]) -> bool {
    text.windows(b"-default\"".len()).any(|part| part == b"-default\"")
}

/// Refuses metadata whose defaults were not all understood.
pub(super) fn check(json: &Value, metadata: &TableMetadata) -> Result<()> {
    for schema in json.get("schemas").and_then(Value::as_array).into_iter().flatten() {
        let id = schema.get("schema-id").and_then(Value::as_i64).and_then(|id| i32::try_from(id).ok());
        let parsed = id.and_then(|id| metadata.schema_by_id(id));
        let understood = |id: i64, key: &str| {
            let field = i32::try_from(id).ok().and_then(|id| parsed?.field_by_id(id));
            field
                .is_some_and(|field| if key == KEYS[0] { field.initial_default.is_some() } else { field.write_default.is_some() })
        };
        check_fields(schema, &understood)?;
    }
    Ok(())
}

fn check_fields(of: &Value, understood: &dyn Fn(i64, &str) -> bool) -> Result<()> {
    for field in of.get("fields").and_then(Value::as_array).into_iter().flatten() {
        let id = field.get("id").and_then(Value::as_i64).unwrap_or(-1);
        for key in KEYS {
            if let Some(default) = field.get(key).filter(|default| !default.is_null() && !understood(id, key)) {
                let name = field.get("name").and_then(Value::as_str).unwrap_or_default();
                let of = field.get("type").cloned().unwrap_or_default();
                return Err(Error::unsupported(format!(
                    "the {key} {default} of column `{name}`, which is {of}, is not supported"
                )));
            }
        }
        if let Some(of) = field.get("type") {
            check_fields(of, understood)?;
        }
    }
    for part in ["element", "key", "value"] {
        if let Some(of) = of.get(part) {
            check_fields(of, understood)?;
        }
    }
    Ok(())
}
