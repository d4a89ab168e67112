use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use chrono::{DateTime, Datelike, NaiveDateTime};
use percent_encoding::percent_decode_str;
use serde_json_borrow::Value;
use tarndb_core::{Error, Result};

/// Years in which events happen. What a store tells of others is its mistake, and most engines cannot compare it.
const YEARS: RangeInclusive<i32> = 1970..=2200;

/// The fields of an object in JSON; anything else has none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(&'a Value<'a>);

fn invalid(message: String) -> Error {
    Error::data_invalid(message)
}

impl<'a> Fields<'a> {
    pub(super) fn of(value: &'a Value<'a>) -> Self {
        Self(value)
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Value<'a>> {
        self.0.as_object()?.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn below(&self, name: &str) -> Self {
        Self(self.get(name).unwrap_or(&Value::Null))
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(Value::as_str)
    }

    /// A text that is not empty.
    pub(super) fn some_text(&self, name: &str) -> Option<String> {
        self.text(name).filter(|text| !text.is_empty()).map(str::to_string)
    }

    pub(super) fn required(&self, name: &str) -> Result<&'a str> {
        let text = self.text(name).filter(|text| !text.is_empty());
        text.ok_or_else(|| invalid(format!("an event has no `{name}`, or one that is no text")))
    }

    /// A number of 0 or more, or a text of its digits.
    pub(super) fn count(&self, name: &str) -> Result<Option<i64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = match value {
            Value::Str(text) if text.is_empty() => return Ok(None),
            Value::Str(text) => text.parse::<u64>().ok(),
            other => other.as_u64(),
        };
        let number = number.and_then(|number| i64::try_from(number).ok());
        number.map(Some).ok_or_else(|| invalid(format!("`{name}` of an event is {value}, which is no number of 0 or more")))
    }

    /// A time in RFC 3339, in microseconds since 1970.
    pub(super) fn time(&self, name: &str) -> Result<i64> {
        let text = self.required(name)?;
        // Some of Azure's have no zone, and mean UTC.
        let plain = || NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").map(|time| time.and_utc().fixed_offset());
        let time = DateTime::parse_from_rfc3339(text).or_else(|e| plain().map_err(|_| e));
        let time = time.map_err(|e| invalid(format!("`{name}` of an event is `{text}`, which is no time: {e}")))?;
        if !YEARS.contains(&time.year()) {
            return Err(invalid(format!("`{name}` of an event is `{text}`, which is not a time at which anything happened")));
        }
        Ok(time.timestamp_micros())
    }

    /// Texts by name; other values are left out.
    pub(super) fn texts(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let pairs = self.get(name)?.as_object()?.iter();
        Some(pairs.filter_map(|(key, value)| Some((key.to_string(), value.as_str()?.to_string()))).collect())
    }
}

/// A tag of contents without the quotes of HTTP.
pub(super) fn e_tag(text: Option<&str>) -> Option<String> {
    text.map(|text| text.trim_matches('"')).filter(|text| !text.is_empty()).map(str::to_string)
}

/// The version that is meant when a store names one.
pub(super) fn version(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty() && *text != "null").map(str::to_string)
}

/// Text in which `%` and two digits are a byte.
///
/// # Errors
/// `DataInvalid` for bytes that are no UTF-8.
pub(super) fn percent_decoded(text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(|text| text.into_owned()).map_err(|_| invalid(format!("the key `{text}` is not UTF-8 when it is decoded")))
}

/// Text as forms have it: as [`percent_decoded`], and a plus is a space.
pub(crate) fn form_decoded(text: &str) -> Result<String> {
    percent_decoded(&text.replace('+', " "))
}
