use iceberg::TableIdent;
use iceberg::spec::Type;
use sqlparser::tokenizer::Token;
use tarndb_catalog::{Error, Result};

use super::create_table::{self, PartitionField};
use super::data_type;
use super::names::normalize;
use super::tokens::Tokens;
use crate::table::evolution::{Change, PartitionFieldName, Position};

/// `ALTER TABLE [IF EXISTS] name` and what is changed.
#[derive(Debug)]
pub(in crate::query) struct AlterTable {
    pub(in crate::query) table: TableIdent,
    pub(in crate::query) if_exists: bool,
    pub(in crate::query) alterations: Vec<Alteration>,
}

/// A column to be, whose default is still an expression.
#[derive(Debug)]
pub(in crate::query) struct ColumnDefinition {
    pub(in crate::query) name: String,
    pub(in crate::query) field_type: Type,
    pub(in crate::query) required: bool,
    pub(in crate::query) doc: Option<String>,
    pub(in crate::query) default: Option<String>,
}

/// One change, as far as the text alone tells: expressions are to be evaluated, and `IF EXISTS` is to be looked up.
#[derive(Debug)]
pub(in crate::query) enum Alteration {
    AddColumn {
        parent: Vec<String>,
        column: Box<ColumnDefinition>,
        position: Option<Position>,
        if_not_exists: bool,
    },
    DropColumn {
        column: Vec<String>,
        if_exists: bool,
    },
    /// `None` drops it.
    SetDefault {
        column: Vec<String>,
        default: Option<String>,
    },
    /// What says all of itself.
    Change(Change),
}

/// `None` for what sqlparser parses (`RENAME TO`) or what is not offered.
pub(super) fn parse(tokens: &mut Tokens) -> Result<Option<AlterTable>> {
    let mut ahead = tokens.clone();
    if !ahead.accept(&["ALTER", "TABLE"]) {
        return Ok(None);
    }
    let if_exists = ahead.accept(&["IF", "EXISTS"]);
    let Ok(table) = ahead.table() else { return Ok(None) };
    let mut alterations = Vec::new();
    loop {
        let Some(mut some) = alteration(&mut ahead)? else { return Ok(None) };
        alterations.append(&mut some);
        if !ahead.accept_token(&Token::Comma) {
            break;
        }
    }
    ahead.end()?;
    *tokens = ahead;
    Ok(Some(AlterTable { table, if_exists, alterations }))
}

fn alteration(tokens: &mut Tokens) -> Result<Option<Vec<Alteration>>> {
    let one = if tokens.accept(&["ADD", "PARTITION", "FIELD"]) {
        let field = create_table::partition_field(tokens)?;
        Alteration::Change(add_partition_field(tokens, field)?)
    } else if tokens.accept(&["DROP", "PARTITION", "FIELD"]) {
        Alteration::Change(Change::DropPartitionField(partition_name(tokens)?))
    } else if tokens.accept(&["REPLACE", "PARTITION", "FIELD"]) {
        let old = partition_name(tokens)?;
        if !tokens.accept(&["WITH"]) {
            return Err(tokens.expected("WITH and the new partition field"));
        }
        let field = create_table::partition_field(tokens)?;
        let changes = [Change::DropPartitionField(old), add_partition_field(tokens, field)?];
        return Ok(Some(changes.map(Alteration::Change).into()));
    } else if tokens.accept(&["ADD", "COLUMNS"]) {
        return Ok(Some(columns(tokens)?));
    } else if tokens.accept(&["ADD", "COLUMN"]) {
        let if_not_exists = tokens.accept(&["IF", "NOT", "EXISTS"]);
        add_column(tokens, if_not_exists)?
    } else if tokens.accept(&["DROP", "COLUMN"]) {
        let if_exists = tokens.accept(&["IF", "EXISTS"]);
        Alteration::DropColumn { column: path(tokens)?, if_exists }
    } else if tokens.accept(&["RENAME", "COLUMN"]) {
        let column = path(tokens)?;
        if !tokens.accept(&["TO"]) {
            return Err(tokens.expected("TO and the new name"));
        }
        Alteration::Change(Change::RenameColumn { column, to: normalize(&tokens.word()?) })
    } else if tokens.accept(&["ALTER", "COLUMN"]) {
        alter_column(tokens)?
    } else if tokens.accept(&["SET", "TBLPROPERTIES"]) {
        let mut properties = Vec::new();
        create_table::properties(tokens, &mut properties)?;
        Alteration::Change(Change::SetProperties(properties))
    } else if tokens.accept(&["UNSET", "TBLPROPERTIES"]) {
        let _ = tokens.accept(&["IF", "EXISTS"]);
        Alteration::Change(Change::UnsetProperties(keys(tokens)?))
    } else {
        return Ok(None);
    };
    Ok(Some(vec![one]))
}

fn columns(tokens: &mut Tokens) -> Result<Vec<Alteration>> {
    tokens.expect(&Token::LParen)?;
    let mut added = Vec::new();
    loop {
        added.push(add_column(tokens, false)?);
        if !tokens.accept_token(&Token::Comma) {
            break;
        }
    }
    tokens.expect(&Token::RParen)?;
    Ok(added)
}

fn add_column(tokens: &mut Tokens, if_not_exists: bool) -> Result<Alteration> {
    let mut parent = path(tokens)?;
    let name = parent.pop().ok_or_else(|| tokens.expected("the name of a column"))?;
    let field_type = data_type::parse(tokens, &mut 0)?;
    let mut column = ColumnDefinition { name, field_type, required: false, doc: None, default: None };
    let mut position = None;
    loop {
        if tokens.accept(&["NOT", "NULL"]) {
            column.required = true;
        } else if tokens.accept(&["NULL"]) {
            column.required = false;
        } else if tokens.accept(&["COMMENT"]) {
            column.doc = Some(tokens.string()?);
        } else if tokens.accept(&["DEFAULT"]) {
            column.default = Some(tokens.expression()?);
        } else if let Some(place) = place(tokens)? {
            position = Some(place);
        } else {
            return Ok(Alteration::AddColumn { parent, column: Box::new(column), position, if_not_exists });
        }
    }
}

fn alter_column(tokens: &mut Tokens) -> Result<Alteration> {
    let column = path(tokens)?;
    if let Some(position) = place(tokens)? {
        return Ok(Alteration::Change(Change::Move { column, position }));
    }
    if tokens.accept(&["TYPE"]) || tokens.accept(&["SET", "DATA", "TYPE"]) {
        return Ok(Alteration::Change(Change::SetType { column, field_type: data_type::parse(tokens, &mut 0)? }));
    }
    if tokens.accept(&["DROP", "NOT", "NULL"]) {
        return Ok(Alteration::Change(Change::DropNotNull(column)));
    }
    if tokens.accept(&["SET", "NOT", "NULL"]) {
        return Err(Error::unsupported("ALTER COLUMN … SET NOT NULL is not supported: older rows may be NULL"));
    }
    if tokens.accept(&["SET", "DEFAULT"]) {
        return Ok(Alteration::SetDefault { column, default: Some(tokens.expression()?) });
    }
    if tokens.accept(&["DROP", "DEFAULT"]) {
        return Ok(Alteration::SetDefault { column, default: None });
    }
    if tokens.accept(&["COMMENT"]) {
        return Ok(Alteration::Change(Change::SetDoc { column, doc: tokens.string()? }));
    }
    Err(tokens.expected("TYPE, SET DEFAULT, DROP DEFAULT, DROP NOT NULL, COMMENT, FIRST or AFTER"))
}

fn place(tokens: &mut Tokens) -> Result<Option<Position>> {
    if tokens.accept(&["FIRST"]) {
        return Ok(Some(Position::First));
    }
    if tokens.accept(&["AFTER"]) {
        return Ok(Some(Position::After(normalize(&tokens.word()?))));
    }
    Ok(None)
}

/// A column, or a field in one: `a.b`.
fn path(tokens: &mut Tokens) -> Result<Vec<String>> {
    let mut path = vec![normalize(&tokens.word()?)];
    while tokens.accept_token(&Token::Period) {
        path.push(normalize(&tokens.word()?));
    }
    Ok(path)
}

/// The field, with the name that may follow it.
fn add_partition_field(tokens: &mut Tokens, field: PartitionField) -> Result<Change> {
    let name = if tokens.accept(&["AS"]) { Some(normalize(&tokens.word()?)) } else { None };
    let PartitionField { column, transform } = field;
    Ok(Change::AddPartitionField { column, transform, name })
}

fn partition_name(tokens: &mut Tokens) -> Result<PartitionFieldName> {
    if matches!(tokens.peek(1), Some(Token::LParen)) {
        let PartitionField { column, transform } = create_table::partition_field(tokens)?;
        return Ok(PartitionFieldName::Of { column, transform });
    }
    Ok(PartitionFieldName::Name(path(tokens)?.join(".")))
}

fn keys(tokens: &mut Tokens) -> Result<Vec<String>> {
    tokens.expect(&Token::LParen)?;
    let mut keys = Vec::new();
    loop {
        keys.push(match tokens.peek(0) {
            Some(Token::SingleQuotedString(_)) => tokens.string()?,
            _ => path(tokens)?.join("."),
        });
        if !tokens.accept_token(&Token::Comma) {
            break;
        }
    }
    tokens.expect(&Token::RParen)?;
    Ok(keys)
}
