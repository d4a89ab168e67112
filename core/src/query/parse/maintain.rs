use tarndb_catalog::{Error, Result};

use super::Statement;
use super::tokens::Tokens;

/// `OPTIMIZE t [WHERE condition]`.
pub(super) fn optimize(tokens: &mut Tokens) -> Result<Statement> {
    tokens.accept(&["TABLE"]);
    let table = tokens.table()?;
    let mut filter = None;
    if tokens.accept(&["WHERE"]) {
        filter = Some(tokens.expression()?);
    }
    if tokens.accept(&["ZORDER"]) || tokens.accept(&["ORDER"]) {
        return Err(Error::unsupported("OPTIMIZE with an order is not supported yet"));
    }
    Ok(Statement::Optimize { table, filter })
}

/// `VACUUM t [RETAIN n HOURS|DAYS] [DRY RUN]`.
pub(super) fn vacuum(tokens: &mut Tokens) -> Result<Statement> {
    tokens.accept(&["TABLE"]);
    let table = tokens.table()?;
    let mut retain_ms = None;
    if tokens.accept(&["RETAIN"]) {
        let count: i64 = tokens.number("a number of hours or days")?;
        let unit_ms: i64 = if tokens.accept(&["HOURS"]) || tokens.accept(&["HOUR"]) {
            60 * 60 * 1000
        } else if tokens.accept(&["DAYS"]) || tokens.accept(&["DAY"]) {
            24 * 60 * 60 * 1000
        } else {
            return Err(tokens.expected("HOURS or DAYS"));
        };
        retain_ms = Some(count.saturating_mul(unit_ms));
    }
    let dry_run = tokens.accept(&["DRY", "RUN"]);
    Ok(Statement::Vacuum { table, retain_ms, dry_run })
}
