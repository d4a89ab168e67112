use std::sync::Arc;

use iceberg::spec::{ListType, MapType, NestedField, PrimitiveType, StructType, Type};
use sqlparser::tokenizer::Token;
use tarndb_catalog::{Error, Result};

use super::names::normalize;
use super::tokens::Tokens;

/// The longest values of a fixed length, in bytes.
const MAX_FIXED: u64 = 16 * 1024 * 1024;

/// How deep types may be nested.
const MAX_DEPTH: usize = 64;

/// Parses a column type. Nested fields get the ids that follow `next_id`.
pub(super) fn parse(tokens: &mut Tokens, next_id: &mut i32) -> Result<Type> {
    nested(tokens, next_id, MAX_DEPTH)
}

fn nested(tokens: &mut Tokens, next_id: &mut i32, depth: usize) -> Result<Type> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Error::unsupported(format!("types nested more than {MAX_DEPTH} deep are not supported")));
    };
    let mut parsed = parse_plain(tokens, next_id, depth)?;
    let mut dimensions = 0;
    while tokens.peek(0) == Some(&Token::LBracket) {
        tokens.expect(&Token::LBracket)?;
        tokens.expect(&Token::RBracket)?;
        dimensions += 1;
        if dimensions > depth {
            return Err(Error::unsupported(format!("types nested more than {MAX_DEPTH} deep are not supported")));
        }
        parsed = list(parsed, next_id);
    }
    Ok(parsed)
}

fn fresh(next_id: &mut i32) -> i32 {
    *next_id += 1;
    *next_id
}

fn list(element: Type, next_id: &mut i32) -> Type {
    let element_field = Arc::new(NestedField::list_element(fresh(next_id), element, false));
    Type::List(ListType { element_field })
}

fn parse_plain(tokens: &mut Tokens, next_id: &mut i32, depth: usize) -> Result<Type> {
    let word = tokens.word().map_err(|_| tokens.expected("a type"))?;
    let name = normalize(&word);
    let primitive = match name.as_str() {
        "boolean" | "bool" => PrimitiveType::Boolean,
        "tinyint" | "smallint" | "int" | "integer" | "int2" | "int4" => PrimitiveType::Int,
        "bigint" | "long" | "int8" => PrimitiveType::Long,
        "float" | "real" | "float4" => PrimitiveType::Float,
        "double" | "float8" => {
            tokens.accept(&["PRECISION"]);
            PrimitiveType::Double
        }
        "decimal" | "numeric" | "dec" => decimal(tokens)?,
        "date" => PrimitiveType::Date,
        "time" => PrimitiveType::Time,
        "timestamptz" => PrimitiveType::Timestamptz,
        "timestamp" => {
            if tokens.accept(&["WITH", "TIME", "ZONE"]) {
                PrimitiveType::Timestamptz
            } else {
                tokens.accept(&["WITHOUT", "TIME", "ZONE"]);
                PrimitiveType::Timestamp
            }
        }
        "string" | "text" => PrimitiveType::String,
        "varchar" | "char" | "character" => {
            // Iceberg has no limit on length; one is read over, as in Spark and Trino.
            if tokens.accept_token(&Token::LParen) {
                tokens.number::<u64>("a length")?;
                tokens.expect(&Token::RParen)?;
            }
            PrimitiveType::String
        }
        "uuid" => PrimitiveType::Uuid,
        "binary" | "varbinary" | "bytea" | "blob" => PrimitiveType::Binary,
        "fixed" => {
            tokens.expect(&Token::LParen)?;
            let length = tokens.number::<u64>("a length")?;
            tokens.expect(&Token::RParen)?;
            if length == 0 || length > MAX_FIXED {
                return Err(Error::invalid_input(format!("the length in FIXED({length}) has to be from 1 to {MAX_FIXED}")));
            }
            PrimitiveType::Fixed(length)
        }
        "timestamp_ns" => PrimitiveType::TimestampNs,
        "timestamptz_ns" => PrimitiveType::TimestamptzNs,
        "variant" | "geometry" | "geography" => {
            return Err(Error::unsupported(format!("the type {} is not supported yet", name.to_uppercase())));
        }
        "array" | "list" => {
            tokens.expect(&Token::Lt)?;
            let element = nested(tokens, next_id, depth)?;
            close(tokens)?;
            return Ok(list(element, next_id));
        }
        "map" => {
            let angle = !tokens.accept_token(&Token::LParen);
            if angle {
                tokens.expect(&Token::Lt)?;
            }
            let key = nested(tokens, next_id, depth)?;
            tokens.expect(&Token::Comma)?;
            let value = nested(tokens, next_id, depth)?;
            if angle {
                close(tokens)?
            } else {
                tokens.expect(&Token::RParen)?
            }
            let key_field = Arc::new(NestedField::map_key_element(fresh(next_id), key));
            let value_field = Arc::new(NestedField::map_value_element(fresh(next_id), value, false));
            return Ok(Type::Map(MapType { key_field, value_field }));
        }
        "struct" | "row" => return structure(tokens, next_id, depth),
        _ => return Err(super::wrong(format!("`{word}` is not a type"))),
    };
    Ok(Type::Primitive(primitive))
}

fn close(tokens: &mut Tokens) -> Result<()> {
    tokens.split_shift_right();
    tokens.expect(&Token::Gt)
}

fn decimal(tokens: &mut Tokens) -> Result<PrimitiveType> {
    let (mut precision, mut scale) = (10, 0);
    if tokens.accept_token(&Token::LParen) {
        precision = tokens.number("a precision")?;
        if tokens.accept_token(&Token::Comma) {
            scale = tokens.number("a scale")?;
        }
        tokens.expect(&Token::RParen)?;
    }
    if precision == 0 || precision > 38 || scale > precision {
        return Err(Error::invalid_input(format!(
            "decimal({precision}, {scale}) is not a type: the precision is 1 to 38, the scale at most that"
        )));
    }
    Ok(PrimitiveType::Decimal { precision, scale })
}

fn structure(tokens: &mut Tokens, next_id: &mut i32, depth: usize) -> Result<Type> {
    let angle = !tokens.accept_token(&Token::LParen);
    if angle {
        tokens.expect(&Token::Lt)?;
    }
    let mut fields = Vec::new();
    loop {
        let name = normalize(&tokens.word()?);
        tokens.accept_token(&Token::Colon);
        let id = fresh(next_id);
        let field_type = nested(tokens, next_id, depth)?;
        let required = tokens.accept(&["NOT", "NULL"]);
        fields.push(Arc::new(NestedField::new(id, name, field_type, required)));
        if !tokens.accept_token(&Token::Comma) {
            break;
        }
    }
    if angle {
        close(tokens)?
    } else {
        tokens.expect(&Token::RParen)?
    }
    Ok(Type::Struct(StructType::new(fields)))
}
