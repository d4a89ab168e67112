//! SQL text to statements. Everything works on sqlparser's tokens, so that comments, quotes and positions in messages are
//! right; what is not tarndb's own grammar goes to DataFusion's parser.

mod alter_table;
mod clauses;
mod create_table;
mod data_type;
mod depth;
mod distinct;
mod duplicates;
mod exact;
mod maintain;
mod names;
mod not_offered;
mod tokens;

use datafusion::sql::parser::{CopyToSource, DFParserBuilder, Statement as EngineStatement};
use sqlparser::ast::{AlterTableOperation, Delete, Insert, ObjectType, Query, Statement as SqlStatement};
use sqlparser::dialect::GenericDialect;
use tarndb_catalog::{Error, Result};

pub(super) use alter_table::{AlterTable, Alteration, ColumnDefinition};
pub(super) use create_table::{CreateTable, PartitionField, parse_transform};
pub(super) use exact::number_as_text;
pub(super) use names::{normalize, table_ident};
pub(crate) use names::{parse_namespace, parse_table_name};
pub use tokens::{Tokens, ends_statement, split_statements};

use iceberg::{NamespaceIdent, TableIdent};

/// A statement, parsed.
#[derive(Debug)]
pub(super) enum Statement {
    CreateNamespace {
        name: NamespaceIdent,
        if_not_exists: bool,
    },
    DropNamespace {
        name: NamespaceIdent,
        if_exists: bool,
        cascade: bool,
    },
    CreateTable(Box<CreateTable>),
    DropTable {
        table: TableIdent,
        if_exists: bool,
        purge: bool,
    },
    RenameTable {
        from: TableIdent,
        to: TableIdent,
        if_exists: bool,
    },
    Delete(Box<Delete>),
    Insert(Box<Insert>),
    /// `filter` is the text of the condition.
    Optimize {
        table: TableIdent,
        filter: Option<String>,
    },
    Vacuum {
        table: TableIdent,
        retain_ms: Option<i64>,
        dry_run: bool,
    },
    AlterTable(AlterTable),
    ShowNamespaces,
    ShowTables {
        namespace: Option<NamespaceIdent>,
    },
    Describe {
        table: TableIdent,
    },
    Engine(EngineStatement),
}

fn wrong(message: impl std::fmt::Display) -> Error {
    Error::invalid_input(format!("SQL is not understood: {message}"))
}

/// Parses exactly one statement.
pub(super) fn parse(sql: &str) -> Result<Statement> {
    let mut tokens = Tokens::new(sql)?;
    tokens.trim_semicolons();
    if tokens.is_empty() {
        return Err(Error::invalid_input("there is no SQL statement"));
    }
    if let Some(statement) = own_statement(&mut tokens)? {
        return Ok(statement);
    }
    if let Some(statement) = alter_table::parse(&mut tokens)? {
        return Ok(Statement::AlterTable(statement));
    }
    not_offered::refuse(&tokens)?;
    let statement = engine_statement(tokens)?;
    classify(statement)
}

/// Parses a query.
pub(super) fn parse_query(sql: &str) -> Result<Box<Query>> {
    if let Statement::Engine(EngineStatement::Statement(statement)) = parse(sql)?
        && let SqlStatement::Query(query) = *statement
    {
        return Ok(query);
    }
    Err(wrong(format!("`{sql}` is not a query")))
}

/// An expression as it is meant, as SQL text.
///
/// # Errors
/// `InvalidInput` when it is not one.
pub(super) fn expression(sql: &str) -> Result<String> {
    let mut tokens = Tokens::new(sql)?;
    let expression = tokens.expression()?;
    tokens.end()?;
    Ok(expression)
}

/// A bound on the depth of the tree of a statement or an expression, for [`super::deep`].
///
/// # Errors
/// `Unsupported` when it is too deep for any stack.
pub(super) fn depth(sql: &str) -> Result<usize> {
    Tokens::new(sql)?.depth()
}

/// Statements of tarndb's own grammar, told by their first words.
fn own_statement(tokens: &mut Tokens) -> Result<Option<Statement>> {
    let statement = if tokens.accept(&["CREATE", "NAMESPACE"]) || tokens.accept(&["CREATE", "SCHEMA"]) {
        let if_not_exists = tokens.accept(&["IF", "NOT", "EXISTS"]);
        Statement::CreateNamespace { name: tokens.namespace()?, if_not_exists }
    } else if tokens.accept(&["DROP", "NAMESPACE"]) || tokens.accept(&["DROP", "SCHEMA"]) {
        let if_exists = tokens.accept(&["IF", "EXISTS"]);
        let name = tokens.namespace()?;
        Statement::DropNamespace { name, if_exists, cascade: tokens.accept(&["CASCADE"]) }
    } else if tokens.accept(&["CREATE", "TABLE"]) {
        return Ok(Some(Statement::CreateTable(Box::new(create_table::parse(tokens)?))));
    } else if tokens.accept(&["SHOW", "NAMESPACES"]) || tokens.accept(&["SHOW", "SCHEMAS"]) {
        Statement::ShowNamespaces
    } else if tokens.accept(&["SHOW", "TABLES"]) {
        let named = tokens.accept(&["IN"]) || tokens.accept(&["FROM"]);
        Statement::ShowTables { namespace: if named { Some(tokens.namespace()?) } else { None } }
    } else if tokens.accept(&["DESCRIBE", "TABLE"]) || tokens.peek_describe() {
        tokens.accept(&["DESCRIBE"]);
        tokens.accept(&["DESC"]);
        Statement::Describe { table: tokens.table()? }
    } else if tokens.accept(&["OPTIMIZE"]) {
        maintain::optimize(tokens)?
    } else if tokens.accept(&["VACUUM"]) {
        maintain::vacuum(tokens)?
    } else {
        return Ok(None);
    };
    tokens.end()?;
    Ok(Some(statement))
}

fn engine_statement(tokens: Tokens) -> Result<EngineStatement> {
    let tokens = tokens.with_versions_in_names()?;
    let mut parser = DFParserBuilder::new(tokens).with_dialect(&GenericDialect {}).build().map_err(wrong_sql)?;
    let mut statements = parser.parse_statements().map_err(wrong_sql)?;
    match (statements.pop_front(), statements.pop_front()) {
        (Some(mut statement), None) => {
            clauses::refuse_ignored(&statement)?;
            exact::keep_digits(&mut statement);
            duplicates::name(&mut statement);
            Ok(statement)
        }
        (None, _) => Err(Error::invalid_input("there is no SQL statement")),
        _ => Err(Error::invalid_input("more than one SQL statement is given: run them one by one")),
    }
}

fn wrong_sql(error: datafusion::common::DataFusionError) -> Error {
    let text = error.strip_backtrace();
    let text = text.trim_start_matches("SQL error: ").to_string();
    let message = text.strip_prefix("ParserError(\"").and_then(|t| t.strip_suffix("\")")).unwrap_or(&text).to_string();
    wrong(message)
}

/// Sorts statements that DataFusion's parser knows into those that tarndb runs, those that DataFusion runs, and those
/// that are not offered.
fn classify(statement: EngineStatement) -> Result<Statement> {
    let unsupported = |what: &str| Err(Error::unsupported(format!("{what} is not supported yet")));
    let statement = match statement {
        EngineStatement::Statement(statement) => *statement,
        EngineStatement::CreateExternalTable(_) => return unsupported("CREATE EXTERNAL TABLE"),
        EngineStatement::Explain(explain) => {
            let inner = classify(*explain.statement.clone())?;
            return match inner {
                Statement::Engine(_) => Ok(Statement::Engine(EngineStatement::Explain(explain))),
                _ => unsupported("EXPLAIN of a statement that changes something"),
            };
        }
        EngineStatement::CopyTo(copy) => {
            return match copy.source {
                CopyToSource::Query(_) | CopyToSource::Relation(_) => Ok(Statement::Engine(EngineStatement::CopyTo(copy))),
            };
        }
        other @ EngineStatement::Reset(_) => return Ok(Statement::Engine(other)),
    };
    match statement {
        SqlStatement::Delete(delete) => Ok(Statement::Delete(Box::new(delete))),
        SqlStatement::Insert(insert) => {
            clauses::check_insert(&insert)?;
            Ok(Statement::Insert(Box::new(insert)))
        }
        ref drop @ SqlStatement::Drop { object_type: ObjectType::Table, if_exists, ref names, purge, .. } => {
            clauses::check_drop(drop)?;
            let name = names.first().ok_or_else(|| wrong("DROP TABLE names no table"))?;
            Ok(Statement::DropTable { table: table_ident(name)?, if_exists, purge })
        }
        SqlStatement::AlterTable(alter) => match alter.operations.as_slice() {
            [AlterTableOperation::RenameTable { table_name }] => {
                let (sqlparser::ast::RenameTableNameKind::To(to) | sqlparser::ast::RenameTableNameKind::As(to)) = table_name;
                let from = table_ident(&alter.name)?;
                let mut target = table_ident(to)?;
                if to.0.len() == 1 {
                    // A bare new name stays in the table's namespace.
                    target = TableIdent::new(from.namespace().clone(), target.name);
                }
                clauses::check_alter(&alter)?;
                Ok(Statement::RenameTable { from, to: target, if_exists: alter.if_exists })
            }
            _ => unsupported("this ALTER TABLE"),
        },
        query @ (SqlStatement::Query(_)
        | SqlStatement::Explain { .. }
        | SqlStatement::Set(_)
        | SqlStatement::ShowVariable { .. }
        | SqlStatement::ShowFunctions { .. }
        | SqlStatement::ShowColumns { .. }) => {
            if let SqlStatement::Explain { statement, .. } = &query {
                classify(EngineStatement::Statement(statement.clone()))?;
            }
            Ok(Statement::Engine(EngineStatement::Statement(Box::new(query))))
        }
        other => {
            let text = other.to_string();
            let words: Vec<&str> = text.split_whitespace().take(2).collect();
            let first = words.first().copied().unwrap_or_default().to_uppercase();
            match (first.as_str(), words.get(1)) {
                ("CREATE" | "DROP" | "ALTER" | "START", Some(second)) => {
                    unsupported(&format!("{first} {}", second.to_uppercase()))
                }
                _ => unsupported(&first),
            }
        }
    }
}
