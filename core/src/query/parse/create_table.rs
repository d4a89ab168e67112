use datafusion::sql::parser::Statement as EngineStatement;
use iceberg::TableIdent;
use iceberg::spec::{NestedField, Transform};
use sqlparser::tokenizer::Token;
use tarndb_catalog::{Error, Result};

use super::names::normalize;
use super::tokens::Tokens;
use super::{data_type, engine_statement};

/// `CREATE TABLE [IF NOT EXISTS] name [(columns)] [PARTITIONED BY (…)] [TBLPROPERTIES (…)] [AS query]`.
#[derive(Debug)]
pub(in crate::query) struct CreateTable {
    pub(in crate::query) table: TableIdent,
    pub(in crate::query) if_not_exists: bool,
    /// Empty when the query gives them.
    pub(in crate::query) columns: Vec<NestedField>,
    /// Expressions of `DEFAULT`, by column.
    pub(in crate::query) defaults: Vec<(String, String)>,
    pub(in crate::query) partition_by: Vec<PartitionField>,
    pub(in crate::query) properties: Vec<(String, String)>,
    pub(in crate::query) query: Option<EngineStatement>,
}

/// `day(ts)`, `bucket(16, id)` or `column`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::query) struct PartitionField {
    pub(in crate::query) column: String,
    pub(in crate::query) transform: Transform,
}

pub(super) fn parse(tokens: &mut Tokens) -> Result<CreateTable> {
    let if_not_exists = tokens.accept(&["IF", "NOT", "EXISTS"]);
    let table = tokens.table()?;
    if tokens.accept(&["LIKE"]) {
        return Err(Error::unsupported("CREATE TABLE … LIKE is not supported yet"));
    }
    let (mut columns, mut defaults) = (Vec::new(), Vec::new());
    if tokens.accept_token(&Token::LParen) {
        let mut next_id = 0;
        // Columns are numbered before the fields nested in them, so they are counted first.
        let mut parsed = Vec::new();
        loop {
            parsed.push(column(tokens, &mut next_id, &mut defaults)?);
            if !tokens.accept_token(&Token::Comma) {
                break;
            }
        }
        tokens.expect(&Token::RParen)?;
        columns = parsed;
    }
    let mut statement =
        CreateTable { table, if_not_exists, columns, defaults, partition_by: Vec::new(), properties: Vec::new(), query: None };
    loop {
        if tokens.accept(&["PARTITIONED", "BY"]) {
            tokens.expect(&Token::LParen)?;
            loop {
                statement.partition_by.push(partition_field(tokens)?);
                if !tokens.accept_token(&Token::Comma) {
                    break;
                }
            }
            tokens.expect(&Token::RParen)?;
        } else if tokens.accept(&["TBLPROPERTIES"]) || tokens.accept(&["WITH"]) {
            properties(tokens, &mut statement.properties)?;
        } else if tokens.accept(&["SORTED", "BY"]) {
            return Err(Error::unsupported("SORTED BY is not supported yet"));
        } else if tokens.accept(&["USING"]) {
            let format = tokens.word()?;
            if !format.value.eq_ignore_ascii_case("iceberg") {
                return Err(Error::unsupported(format!(
                    "tables of the format `{format}` cannot be created: tarndb makes Iceberg tables"
                )));
            }
        } else if tokens.accept(&["AS"]) {
            statement.query = Some(engine_statement(tokens.rest())?);
            break;
        } else {
            break;
        }
    }
    tokens.end()?;
    if statement.columns.is_empty() && statement.query.is_none() {
        return Err(Error::invalid_input(format!("table `{}` has no columns: give them, or AS a query", statement.table)));
    }
    if !statement.columns.is_empty() && statement.query.is_some() {
        return Err(Error::unsupported("CREATE TABLE with columns and AS a query is not supported: cast in the query"));
    }
    Ok(statement)
}

fn column(tokens: &mut Tokens, next_id: &mut i32, defaults: &mut Vec<(String, String)>) -> Result<NestedField> {
    for constraint in ["PRIMARY", "CONSTRAINT", "UNIQUE", "FOREIGN", "CHECK"] {
        if matches!(tokens.peek(1), Some(Token::Word(_) | Token::LParen))
            && tokens.peek(0) == Some(&Token::make_keyword(constraint))
        {
            return Err(Error::unsupported(format!("{constraint} constraints are not supported: Iceberg does not enforce them")));
        }
    }
    let name = normalize(&tokens.word()?);
    *next_id += 1;
    let id = *next_id;
    let field_type = data_type::parse(tokens, next_id)?;
    let mut field = NestedField::optional(id, name, field_type);
    loop {
        if tokens.accept(&["NOT", "NULL"]) {
            field.required = true;
        } else if tokens.accept(&["NULL"]) {
            field.required = false;
        } else if tokens.accept(&["COMMENT"]) {
            field = field.with_doc(&tokens.string()?);
        } else if tokens.accept(&["DEFAULT"]) {
            defaults.push((field.name.clone(), tokens.expression()?));
        } else if tokens.accept(&["PRIMARY", "KEY"]) || tokens.accept(&["UNIQUE"]) {
            return Err(Error::unsupported(format!(
                "keys, as of column `{}`, are not supported: Iceberg does not enforce them",
                field.name
            )));
        } else {
            return Ok(field);
        }
    }
}

/// Parses a transform as users write it in `partition_by`.
pub(in crate::query) fn parse_transform(text: &str) -> Result<PartitionField> {
    let mut tokens = Tokens::new(text)?;
    let field = partition_field(&mut tokens)?;
    tokens.end()?;
    Ok(field)
}

pub(super) fn partition_field(tokens: &mut Tokens) -> Result<PartitionField> {
    let name = tokens.word()?;
    if !tokens.accept_token(&Token::LParen) {
        return Ok(PartitionField { column: path(tokens, &name)?, transform: Transform::Identity });
    }
    let function = name.value.to_lowercase();
    let transform = match function.as_str() {
        "identity" => Transform::Identity,
        "year" | "years" => Transform::Year,
        "month" | "months" => Transform::Month,
        "day" | "days" | "date" => Transform::Day,
        "hour" | "hours" => Transform::Hour,
        "void" => Transform::Void,
        "bucket" | "truncate" => {
            // `bucket(16, id)`, or `bucket(id, 16)`, which others write.
            let width_first = matches!(tokens.peek(0), Some(Token::Number(..)));
            let mut width = if width_first { Some(tokens.number::<u32>("a number")?) } else { None };
            if width_first {
                tokens.expect(&Token::Comma)?;
            }
            let first = tokens.word()?;
            let column = path(tokens, &first)?;
            if width.is_none() {
                tokens.expect(&Token::Comma)?;
                width = Some(tokens.number::<u32>("a number")?);
            }
            tokens.expect(&Token::RParen)?;
            let width = width.filter(|width| *width > 0 && i32::try_from(*width).is_ok());
            let width = width.ok_or_else(|| Error::invalid_input(format!("the number in `{function}` has to be at least 1")))?;
            let transform = if function == "bucket" { Transform::Bucket(width) } else { Transform::Truncate(width) };
            return Ok(PartitionField { column, transform });
        }
        _ => {
            return Err(Error::invalid_input(format!(
                "`{name}` is not a partition transform: use year, month, day, hour, bucket(n, column), truncate(n, column) or a column"
            )));
        }
    };
    let first = tokens.word()?;
    let column = path(tokens, &first)?;
    tokens.expect(&Token::RParen)?;
    Ok(PartitionField { column, transform })
}

/// A column, or a field in one: `a.b`.
fn path(tokens: &mut Tokens, first: &sqlparser::ast::Ident) -> Result<String> {
    let mut name = normalize(first);
    while tokens.accept_token(&Token::Period) {
        name = format!("{name}.{}", normalize(&tokens.word()?));
    }
    Ok(name)
}

pub(super) fn properties(tokens: &mut Tokens, into: &mut Vec<(String, String)>) -> Result<()> {
    tokens.expect(&Token::LParen)?;
    loop {
        let key = match tokens.peek(0) {
            Some(Token::SingleQuotedString(_)) => tokens.string()?,
            _ => {
                let first = tokens.word()?;
                path(tokens, &first)?
            }
        };
        tokens.expect(&Token::Eq)?;
        let value = match tokens.take() {
            Some(Token::SingleQuotedString(text)) => text,
            Some(Token::Number(digits, _)) => digits,
            Some(Token::Word(word)) => word.value,
            _ => return Err(Error::invalid_input(format!("property `{key}` has no value"))),
        };
        into.push((key, value));
        if !tokens.accept_token(&Token::Comma) {
            break;
        }
    }
    tokens.expect(&Token::RParen)
}
