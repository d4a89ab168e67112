use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, DFSchema, ParamValues, Result as EngineResult, ScalarValue};
use datafusion::datasource::source_as_provider;
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{DmlStatement, Expr as EngineExpr, ExprSchemable, LogicalPlan, Projection, Values, WriteOp};
use datafusion::sql::parser::Statement as EngineStatement;
use datafusion::sql::planner::object_name_to_table_reference;
use futures::StreamExt;
use sqlparser::ast::{
    CastKind, DataType as SqlType, Expr, Insert, ObjectName, ObjectNamePart, SetExpr, Statement as SqlStatement, TableObject,
};
use tarndb_catalog::{Error, Result};

use super::parse::{normalize, number_as_text, table_ident};
use super::table_provider::IcebergTableProvider;
use super::uuid::uuid_field;
use super::{plan_in, run_plan, session};
use crate::error::engine_error;
use crate::lakehouse::{Lakehouse, QueryResult, append_rows};
use crate::table::is_uuid_field;
use crate::writer::Matching;

/// `INSERT INTO t [(columns)] VALUES … | SELECT …`. Columns that are not named become their default, or NULL.
pub(super) async fn run(lake: &Lakehouse, mut statement: Box<Insert>, params: Option<ParamValues>) -> Result<QueryResult> {
    let TableObject::TableName(name) = statement.table.clone() else {
        return Err(Error::unsupported("INSERT into something other than a table is not supported"));
    };
    // Refuses what is not the name of a table, such as an earlier version of one.
    table_ident(&name)?;
    let mut state = session::statement_state(lake);
    let target = target(&state, &name).await?;
    let columns: Vec<String> =
        statement.columns.iter().filter_map(|name| name.0.last().and_then(ObjectNamePart::as_ident)).map(normalize).collect();
    let (provider, input) = match (target, statement.source.take()) {
        (Some(target), Some(query)) if !matches!(query.body.as_ref(), SetExpr::Values(_)) => {
            let query = EngineStatement::Statement(Box::new(SqlStatement::Query(query)));
            let plan = plan_in(&state, query, params).await?;
            let input = assigned(plan, target.as_ref(), &columns)?;
            (target, input)
        }
        (target, source) => {
            statement.source = source;
            if let (Some(target), Some(source)) = (&target, &mut statement.source)
                && let SetExpr::Values(values) = source.body.as_mut()
            {
                let kinds = kinds(&target.schema(), &columns);
                values.rows.iter_mut().for_each(|row| row.content.iter_mut().zip(&kinds).for_each(|(e, kind)| kind.spell(e)));
            }
            let statement = EngineStatement::Statement(Box::new(SqlStatement::Insert(*statement)));
            let LogicalPlan::Dml(DmlStatement { op: WriteOp::Insert(_), input, target, .. }) =
                plan_in(&state, statement, params).await?
            else {
                return Err(Error::internal("an INSERT was planned as something else"));
            };
            let input = with_nullable_values(input.as_ref().clone())?;
            (source_as_provider(&target).map_err(engine_error)?, input)
        }
    };
    session::suit(&mut state, &input).map_err(engine_error)?;
    // The table for which the columns were put in order, not the one of that name now.
    let table = (provider.as_ref() as &dyn std::any::Any)
        .downcast_ref::<IcebergTableProvider>()
        .ok_or_else(|| Error::unsupported(format!("INSERT into `{name}` is not supported: it is not a table of the lake")))?
        .table();
    let memory = Arc::clone(&state.runtime_env().memory_pool);
    let rows = run_plan(state, input).await?;
    let appended = append_rows(table, rows.boxed(), Matching::ByPosition, &memory).await?;
    QueryResult::counts(&[("rows", appended.rows)])
}

/// The table; planning tells when there is none.
async fn target(state: &SessionState, table: &ObjectName) -> Result<Option<Arc<dyn TableProvider>>> {
    let reference = object_name_to_table_reference(table.clone(), true).map_err(engine_error)?;
    let schema = state.schema_for_ref(reference.clone()).map_err(engine_error)?;
    schema.table(reference.table()).await.map_err(engine_error)
}

/// The rows of a query in the table's columns, cast to their types.
fn assigned(query: LogicalPlan, target: &dyn TableProvider, columns: &[String]) -> Result<LogicalPlan> {
    let table = &target.schema();
    let given = query.schema().fields().len();
    let names: Vec<&String> =
        if columns.is_empty() { table.fields().iter().map(|field| field.name()).collect() } else { columns.iter().collect() };
    if let Some(unknown) = names.iter().find(|name| table.field_with_name(name).is_err()) {
        let known = table.fields().iter().map(|field| format!("`{}`", field.name())).collect::<Vec<_>>().join(", ");
        return Err(Error::invalid_input(format!("the table has no column `{unknown}`; it has {known}")));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = names.iter().find(|name| !seen.insert(**name)) {
        return Err(Error::invalid_input(format!("column `{twice}` is given twice")));
    }
    if given != names.len() {
        return Err(Error::invalid_input(format!("{given} columns are given for {} of the table", names.len())));
    }
    let exprs = table.fields().iter().map(|field| {
        let expr = match names.iter().position(|name| *name == field.name()) {
            Some(index) => {
                let column = EngineExpr::Column(Column::from(query.schema().qualified_field(index)));
                cast(column, field, query.schema())?
            }
            None => match target.get_column_default(field.name()) {
                Some(default) => default.clone(),
                None => EngineExpr::Literal(ScalarValue::try_from(field.data_type()).map_err(engine_error)?, None),
            },
        };
        Ok(expr.alias(field.name()))
    });
    let exprs = exprs.collect::<Result<Vec<_>>>()?;
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(query)).map_err(engine_error)?))
}

fn cast(column: EngineExpr, field: &Field, schema: &DFSchema) -> Result<EngineExpr> {
    if is_uuid_field(field) {
        return Ok(EngineExpr::Cast(Cast::new_from_field(Box::new(column), uuid_field(field.name()))));
    }
    check_fields(&column.get_type(schema).map_err(engine_error)?, field.data_type())?;
    column.cast_to(field.data_type(), schema).map_err(engine_error)
}

/// Refuses a struct with a field that the table's lacks: DataFusion would leave it out.
fn check_fields(from: &DataType, to: &DataType) -> Result<()> {
    let is_map = matches!(to, DataType::Map(..));
    match (from, to) {
        (DataType::Struct(from), DataType::Struct(to)) => {
            for field in from {
                let Some((_, target)) = to.find(field.name()) else {
                    return Err(Error::invalid_input(format!("the table's column has no field `{}`", field.name())));
                };
                check_fields(field.data_type(), target.data_type())?;
            }
            Ok(())
        }
        (
            DataType::List(from) | DataType::LargeList(from) | DataType::FixedSizeList(from, _) | DataType::Map(from, _),
            DataType::List(to) | DataType::Map(to, _),
        ) => match (from.data_type(), to.data_type()) {
            // The names of a map's keys and values mean nothing.
            (DataType::Struct(from), DataType::Struct(to)) if is_map => {
                from.iter().zip(to).try_for_each(|(from, to)| check_fields(from.data_type(), to.data_type()))
            }
            (from, to) => check_fields(from, to),
        },
        _ => Ok(()),
    }
}

/// What DataFusion has to be told of a column, so that it assigns what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    /// It does not cast text to UUIDs.
    Uuid,
    /// It reads numbers with a fraction as floats.
    Decimal,
}

impl Kind {
    fn of(field: &Field) -> Self {
        match field.data_type() {
            _ if is_uuid_field(field) => Self::Uuid,
            of if of.is_decimal() => Self::Decimal,
            _ => Self::Any,
        }
    }

    /// Writes a value so that it is assigned as it was meant.
    fn spell(self, value: &mut Expr) {
        match self {
            Self::Any => {}
            Self::Uuid => {
                let expr = Box::new(value.clone());
                *value = Expr::Cast { kind: CastKind::Cast, expr, data_type: SqlType::Uuid, array: false, format: None };
            }
            Self::Decimal => number_as_text(value),
        }
    }
}

/// Those of the columns that a statement gives, in its order. Planning tells of unknown ones.
fn kinds(table: &SchemaRef, columns: &[String]) -> Vec<Kind> {
    if columns.is_empty() {
        return table.fields().iter().map(|field| Kind::of(field)).collect();
    }
    columns.iter().map(|name| table.field_with_name(name).map_or(Kind::Any, Kind::of)).collect()
}

/// DataFusion gives the rows of `VALUES` the table's own NOT NULL, and then fails on a NULL with the name of a column that
/// the user never wrote. The writer checks the same and names the table's column.
fn with_nullable_values(plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Projection(projection) = &plan else { return Ok(plan) };
    let LogicalPlan::Values(values) = projection.input.as_ref() else { return Ok(plan) };
    for value in values.values.iter().flatten() {
        if let EngineExpr::Cast(Cast { expr, field }) = value
            && let Ok(from) = expr.get_type(&DFSchema::empty())
        {
            check_fields(&from, field.data_type())?;
        }
    }
    let nullable = || -> EngineResult<LogicalPlan> {
        let fields = values.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let schema = Arc::new(DFSchema::from_unqualified_fields(fields, values.schema.metadata().clone())?);
        let values = LogicalPlan::Values(Values { schema, values: values.values.clone() });
        Ok(LogicalPlan::Projection(Projection::try_new(projection.expr.clone(), Arc::new(values))?))
    };
    nullable().map_err(engine_error)
}
