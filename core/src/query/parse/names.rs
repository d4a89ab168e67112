use iceberg::{NamespaceIdent, TableIdent};
use sqlparser::ast::{Ident, ObjectName, ObjectNamePart};
use tarndb_catalog::{Error, Result};

use super::tokens::Tokens;
use crate::query::relation;
use crate::query::session::DEFAULT_NAMESPACE;

/// An identifier as DataFusion normalises it: lower case unless quoted.
pub(in crate::query) fn normalize(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn parts(name: &ObjectName) -> Result<Vec<String>> {
    let part = |part: &ObjectNamePart| match part {
        ObjectNamePart::Identifier(ident) if relation::has_suffix(&ident.value) => {
            Err(Error::invalid_input("an earlier version of a table cannot be changed"))
        }
        ObjectNamePart::Identifier(ident) if ident.value.chars().any(char::is_control) => {
            Err(Error::invalid_input("a name holds a control character"))
        }
        ObjectNamePart::Identifier(ident) if !ident.value.is_empty() => Ok(normalize(ident)),
        _ => Err(Error::invalid_input(format!("`{name}` is not a name"))),
    };
    name.0.iter().map(part).collect()
}

/// `table` in the default namespace, or `namespace.table`. Nested namespaces are quoted: `"a.b".table`.
pub(in crate::query) fn table_ident(name: &ObjectName) -> Result<TableIdent> {
    let mut parts = parts(name)?;
    if parts.len() == 3 && parts.first().is_some_and(|catalog| catalog == crate::query::session::CATALOG) {
        parts.remove(0);
    }
    match parts.as_slice() {
        [table] => Ok(TableIdent::new(NamespaceIdent::new(DEFAULT_NAMESPACE.to_string()), table.clone())),
        [namespace, table] => Ok(TableIdent::new(NamespaceIdent::from_strs(namespace.split('.'))?, table.clone())),
        _ => Err(Error::invalid_input(format!("`{name}` has too many parts: a table is `table` or `namespace.table`"))),
    }
}

/// A namespace; levels are separated by dots, quoted or not.
pub(super) fn namespace_ident(name: &ObjectName) -> Result<NamespaceIdent> {
    let levels: Vec<String> =
        parts(name)?.iter().flat_map(|part| part.split('.').map(str::to_string).collect::<Vec<_>>()).collect();
    if levels.iter().any(String::is_empty) {
        return Err(Error::invalid_input(format!("`{name}` is not a namespace")));
    }
    Ok(NamespaceIdent::from_strs(levels)?)
}

/// The table that the SQL name `name` means.
///
/// # Errors
/// `InvalidInput` when it is not one.
pub(crate) fn parse_table_name(name: &str) -> Result<TableIdent> {
    let mut tokens = Tokens::new(name)?;
    let ident = tokens.table()?;
    tokens.end()?;
    Ok(ident)
}

/// The namespace that the SQL name `name` means.
///
/// # Errors
/// `InvalidInput` when it is not one.
pub(crate) fn parse_namespace(name: &str) -> Result<NamespaceIdent> {
    let mut tokens = Tokens::new(name)?;
    let namespace = tokens.namespace()?;
    tokens.end()?;
    Ok(namespace)
}
