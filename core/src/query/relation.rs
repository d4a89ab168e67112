//! Time travel in SQL.
//!
//! DataFusion resolves tables by name only, so the version of `t FOR VERSION AS OF 5` travels in the name: the
//! statement's tokens are rewritten to read a table whose name ends in a suffix that no user can type, under the alias `t`.

use datafusion::common::Result as EngineResult;
use datafusion::common::{not_impl_err, plan_err};
use datafusion::logical_expr::planner::{RelationPlanner, RelationPlannerContext, RelationPlanning};
use sqlparser::ast::{Ident, ObjectName, ObjectNamePart, TableFactor};
use tarndb_catalog::{Error, Result};

use crate::table::Version;

/// Ends the name proper. Users cannot write it: the parser refuses control characters in names, and so do we.
const SEPARATOR: char = '\u{1}';

/// The file of a row that may be deleted: a name that no column of a user's has.
pub(super) const FILE_COLUMN: &str = "_tarndb_file";
/// Its position there.
pub(super) const POSITION_COLUMN: &str = "_tarndb_pos";

/// What a name carries beside the table's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Suffix {
    /// Read this version.
    Version(Version),
    /// Read rows with [`FILE_COLUMN`] and [`POSITION_COLUMN`].
    Positions,
}

pub(super) fn encode(name: &str, suffix: &Suffix) -> String {
    let text = match suffix {
        Suffix::Version(Version::Snapshot(id)) => format!("s{id}"),
        Suffix::Version(Version::Ref(name)) => format!("r{name}"),
        Suffix::Version(Version::TimestampMs(ms)) => format!("t{ms}"),
        Suffix::Positions => "p".to_string(),
    };
    format!("{name}{SEPARATOR}{text}")
}

/// Whether the name carries anything.
pub(super) fn has_suffix(name: &str) -> bool {
    name.contains(SEPARATOR)
}

pub(super) fn decode(name: &str) -> Result<(&str, Option<Suffix>)> {
    let Some((plain, text)) = name.split_once(SEPARATOR) else {
        return Ok((name, None));
    };
    let number = |digits: &str| digits.parse().map_err(|_| Error::internal("a table name carries a wrong version"));
    let suffix = match (text.get(..1), text.get(1..)) {
        (Some("s"), Some(id)) => Suffix::Version(Version::Snapshot(number(id)?)),
        (Some("r"), Some(name)) => Suffix::Version(Version::Ref(name.to_string())),
        (Some("t"), Some(ms)) => Suffix::Version(Version::TimestampMs(number(ms)?)),
        (Some("p"), Some("")) => Suffix::Positions,
        _ => return Err(Error::internal("a table name carries an unknown suffix")),
    };
    Ok((plain, Some(suffix)))
}

/// Puts a suffix on the last part of a table's name, whose identifiers are normalised as DataFusion would.
pub(super) fn with_suffix(name: &ObjectName, suffix: &Suffix) -> Result<(ObjectName, Ident)> {
    let mut parts = name.0.clone();
    let last = match parts.last_mut() {
        Some(ObjectNamePart::Identifier(last)) => last,
        _ => return Err(Error::invalid_input(format!("`{name}` is not the name of a table"))),
    };
    let original = last.clone();
    let plain = if last.quote_style.is_some() { last.value.clone() } else { last.value.to_lowercase() };
    *last = Ident::with_quote('"', encode(&plain, suffix));
    Ok((ObjectName(parts), original))
}

/// Refuses versions that reach DataFusion by another way than the rewritten tokens, and samples: it would ignore them and
/// answer with all current rows.
#[derive(Debug)]
pub(super) struct RefuseVersions;

impl RelationPlanner for RefuseVersions {
    fn plan_relation(&self, relation: TableFactor, _context: &mut dyn RelationPlannerContext) -> EngineResult<RelationPlanning> {
        if let TableFactor::Table { version: Some(version), .. } = &relation {
            return plan_err!("time travel ({version}) works through Lakehouse::sql, not through the session's own sql()");
        }
        if let TableFactor::Table { sample: Some(_), name, .. } = &relation {
            return not_impl_err!("TABLESAMPLE, as of `{name}`, is not supported yet");
        }
        Ok(RelationPlanning::Original(Box::new(relation)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_survive() {
        for suffix in [
            Suffix::Version(Version::Snapshot(-3)),
            Suffix::Version(Version::Ref("a b".into())),
            Suffix::Version(Version::TimestampMs(5)),
            Suffix::Positions,
        ] {
            let name = encode("t", &suffix);
            assert_eq!(decode(&name).unwrap(), ("t", Some(suffix)));
        }
        assert_eq!(decode("t$files").unwrap(), ("t$files", None));
    }
}
