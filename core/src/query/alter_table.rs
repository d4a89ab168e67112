use std::sync::Arc;

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::Schema as ArrowSchema;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::Expr;
use iceberg::arrow::arrow_primitive_to_literal;
use iceberg::spec::{Literal, NestedField, PrimitiveType, Schema, Type};
use tarndb_catalog::{Error, ErrorKind, Result};

use super::coercion::coerce;
use super::parse::{AlterTable, Alteration, ColumnDefinition};
use crate::error::engine_error;
use crate::lakehouse::{Lakehouse, QueryResult};
use crate::table::evolution::{Change, NewColumn};
use crate::table::{Table, arrow_schema};
use crate::transaction::{Alter, Caller, Transaction};

pub(super) async fn run(lake: &Lakehouse, statement: AlterTable) -> Result<QueryResult> {
    let AlterTable { table: ident, if_exists, alterations } = statement;
    let table = match lake.load(&ident).await {
        Err(e) if if_exists && e.kind() == ErrorKind::NotFound => return Ok(QueryResult::empty()),
        loaded => loaded?,
    };
    table.check_columns(None)?;
    let mut changes = Vec::with_capacity(alterations.len());
    for alteration in alterations {
        changes.extend(change(lake, &table, alteration)?);
    }
    if !changes.is_empty() {
        Transaction::new(&table, Caller::User).with(Alter::new(changes)).commit().await?;
    }
    Ok(QueryResult::empty())
}

/// What an alteration asks for; `None` when there is nothing to do.
fn change(lake: &Lakehouse, table: &Table, alteration: Alteration) -> Result<Option<Change>> {
    let find = |path: &[String]| table.schema().field_by_name(&path.join("."));
    let missing = |path: &[String]| Error::invalid_input(format!("there is no column `{}`", path.join(".")));
    Ok(Some(match alteration {
        Alteration::AddColumn { parent, column, position, if_not_exists } => {
            let ColumnDefinition { name, field_type, required, doc, default } = *column;
            let path: Vec<String> = parent.iter().cloned().chain([name.clone()]).collect();
            if if_not_exists && find(&path).is_some() {
                return Ok(None);
            }
            let default = default.map(|default| literal(lake, &name, &default, &field_type)).transpose()?.flatten();
            Change::AddColumn { parent, column: Box::new(NewColumn { name, field_type, required, doc, default }), position }
        }
        Alteration::DropColumn { column, if_exists } if if_exists && find(&column).is_none() => return Ok(None),
        Alteration::DropColumn { column, .. } => Change::DropColumn(column),
        Alteration::SetDefault { column, default } => {
            let field = find(&column).ok_or_else(|| missing(&column))?;
            let default = default.map(|default| literal(lake, &field.name, &default, &field.field_type)).transpose()?.flatten();
            Change::SetWriteDefault { column, default }
        }
        Alteration::Change(change) => change,
    }))
}

/// The value of a `DEFAULT`, in the column's type; `None` for NULL.
///
/// # Errors
/// `InvalidInput` for what is not a value of the type, `Unsupported` for what is not a constant.
pub(super) fn literal(lake: &Lakehouse, column: &str, sql: &str, of: &Type) -> Result<Option<Literal>> {
    if !matches!(of, Type::Primitive(_)) {
        return Err(Error::unsupported(format!("a DEFAULT of column `{column}`, which is {of}, is not supported")));
    }
    let empty = DFSchema::empty();
    let context = lake.session_context();
    let expr = context.parse_sql_expr(sql, &empty).map_err(engine_error)?;
    let computes = |expr: &Expr| Ok(matches!(expr, Expr::ScalarFunction(_) | Expr::Column(_) | Expr::ScalarSubquery(_)));
    if expr.exists(computes).map_err(engine_error)? {
        return Err(Error::unsupported(format!("the DEFAULT of column `{column}` has to be a constant, and not `{sql}`")));
    }
    let field = NestedField::optional(1, column, of.clone());
    let schema = arrow_schema(&Schema::builder().with_fields([Arc::new(field)]).build()?)?;
    let target = schema.field(0).data_type();
    let not_one = |e| {
        let message = format!("the DEFAULT of column `{column}`, `{sql}`, is not a value of its type {of}");
        Error::invalid_input(message).with_source(engine_error(e))
    };
    let expr = coerce(expr, &empty).map_err(engine_error)?.data;
    let physical = context.create_physical_expr(expr, &empty).map_err(not_one)?;
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(ArrowSchema::empty()), Vec::new(), &options);
    let value = row.map_err(Into::into).and_then(|row| physical.evaluate(&row)?.into_array(1)).map_err(not_one)?;
    if let (Type::Primitive(PrimitiveType::Uuid), Ok(ScalarValue::Utf8(Some(text)))) =
        (of, ScalarValue::try_from_array(&value, 0))
    {
        let uuid = Literal::uuid_from_str(&text);
        return uuid
            .map(Some)
            .map_err(|_| Error::invalid_input(format!("the DEFAULT of column `{column}`, `{text}`, is no UUID")));
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let value = cast_with_options(&value, target, &strict).map_err(|e| not_one(e.into()))?;
    if value.is_null(0) {
        return Ok(None);
    }
    Ok(arrow_primitive_to_literal(&value, of)?.pop().flatten())
}
