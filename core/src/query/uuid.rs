//! UUIDs: 16 bytes with the Arrow extension `arrow.uuid`, from text and to text.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryBuilder, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result as EngineResult, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use uuid::Uuid;

use crate::table::{EXTENSION_KEY, UUID_EXTENSION};

pub(super) fn uuid_field(name: &str) -> FieldRef {
    let metadata = HashMap::from([(EXTENSION_KEY.to_string(), UUID_EXTENSION.to_string())]);
    Arc::new(Field::new(name, DataType::FixedSizeBinary(16), true).with_metadata(metadata))
}

/// What a function of this file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Conversion {
    ToUuid,
    /// Text that is no UUID becomes NULL.
    TryToUuid,
    ToText,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Convert {
    conversion: Conversion,
    signature: Signature,
}

pub(super) static TO_UUID: LazyLock<ScalarUDF> = LazyLock::new(|| Convert::function(Conversion::ToUuid));
pub(super) static TRY_TO_UUID: LazyLock<ScalarUDF> = LazyLock::new(|| Convert::function(Conversion::TryToUuid));
pub(super) static UUID_TEXT: LazyLock<ScalarUDF> = LazyLock::new(|| Convert::function(Conversion::ToText));

impl Convert {
    fn function(conversion: Conversion) -> ScalarUDF {
        ScalarUDF::new_from_impl(Self { conversion, signature: Signature::any(1, Volatility::Immutable) })
    }

    fn uuids(&self, values: &ArrayRef) -> EngineResult<ArrayRef> {
        if *values.data_type() == DataType::FixedSizeBinary(16) {
            return Ok(Arc::clone(values));
        }
        let text = cast(values, &DataType::Utf8)?;
        let mut uuids = FixedSizeBinaryBuilder::with_capacity(text.len(), 16);
        for value in text.as_string::<i32>() {
            match (value.map(Uuid::parse_str), value) {
                (Some(Ok(uuid)), _) => uuids.append_value(uuid.as_bytes())?,
                (Some(Err(_)), Some(text)) if self.conversion == Conversion::ToUuid => {
                    return exec_err!("`{text}` is not a UUID: write it as 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6'");
                }
                _ => uuids.append_null(),
            }
        }
        Ok(Arc::new(uuids.finish()))
    }
}

impl ScalarUDFImpl for Convert {
    fn name(&self) -> &str {
        match self.conversion {
            Conversion::ToUuid => "to_uuid",
            Conversion::TryToUuid => "try_to_uuid",
            Conversion::ToText => "uuid_text",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> EngineResult<DataType> {
        Ok(if self.conversion == Conversion::ToText { DataType::Utf8 } else { DataType::FixedSizeBinary(16) })
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs<'_>) -> EngineResult<FieldRef> {
        Ok(match self.conversion {
            Conversion::ToText => Arc::new(Field::new(self.name(), DataType::Utf8, true)),
            Conversion::ToUuid | Conversion::TryToUuid => uuid_field(self.name()),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> EngineResult<ColumnarValue> {
        let [value] = args.args.as_slice() else {
            return plan_err!("{} takes one argument", self.name());
        };
        let values = match value {
            ColumnarValue::Array(values) => Arc::clone(values),
            ColumnarValue::Scalar(value) => value.to_array()?,
        };
        let converted = match self.conversion {
            Conversion::ToText => text(&values)?,
            Conversion::ToUuid | Conversion::TryToUuid => self.uuids(&values)?,
        };
        Ok(match value {
            ColumnarValue::Array(_) => ColumnarValue::Array(converted),
            ColumnarValue::Scalar(_) => ColumnarValue::Scalar(ScalarValue::try_from_array(&converted, 0)?),
        })
    }
}

fn text(values: &ArrayRef) -> EngineResult<ArrayRef> {
    let Some(uuids) = values.as_fixed_size_binary_opt() else {
        return exec_err!("{} is not the type of a UUID", values.data_type());
    };
    let mut text = StringBuilder::new();
    for value in uuids {
        text.append_option(value.and_then(|bytes| Uuid::from_slice(bytes).ok()).map(|uuid| uuid.to_string()));
    }
    Ok(Arc::new(text.finish()))
}
