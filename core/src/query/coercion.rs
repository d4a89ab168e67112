//! Types that DataFusion neither casts nor compares, or compares wrongly: text and UUIDs, times of different units, moments
//! outside of those that nanoseconds can tell, keys of maps, lists of values for a column that may be NULL.

use std::hash::Hash;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result as EngineResult, plan_datafusion_err};
use datafusion::logical_expr::expr::{Between, BinaryExpr, Cast, InList, ScalarFunction, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr, TypePlanner};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, Projection, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use sqlparser::ast::{BinaryOperator, DataType as SqlType, TimezoneInfo};

use super::uuid::{TO_UUID, TRY_TO_UUID, UUID_TEXT, uuid_field};
use crate::table::is_uuid_field;

const TIME: DataType = DataType::Time64(TimeUnit::Microsecond);
const TIME_IN_NANOSECONDS: DataType = DataType::Time64(TimeUnit::Nanosecond);
const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
const TIMESTAMP_IN_SECONDS: DataType = DataType::Timestamp(TimeUnit::Second, None);

/// Types of SQL that are Iceberg's: `UUID`, and `TIME` and `TIMESTAMP` in microseconds. In nanoseconds, which is what
/// DataFusion takes, timestamps end in 2262.
#[derive(Debug)]
pub(super) struct IcebergTypes;

impl TypePlanner for IcebergTypes {
    fn plan_type_field(&self, sql_type: &SqlType) -> EngineResult<Option<FieldRef>> {
        Ok(match sql_type {
            SqlType::Uuid => Some(uuid_field("uuid")),
            SqlType::Time(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                Some(Arc::new(Field::new("time", TIME, true)))
            }
            SqlType::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                Some(Arc::new(Field::new("timestamp", TIMESTAMP, true)))
            }
            _ => None,
        })
    }
}

/// Makes the sides of a comparison comparable: DataFusion asks for its type before [`Coercion`] has seen it.
#[derive(Debug)]
pub(super) struct Comparison;

impl ExprPlanner for Comparison {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> EngineResult<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        let compares = matches!(
            op,
            BinaryOperator::Eq
                | BinaryOperator::NotEq
                | BinaryOperator::Lt
                | BinaryOperator::LtEq
                | BinaryOperator::Gt
                | BinaryOperator::GtEq
        );
        let (left, right) = if compares { comparable(left, right, schema).data } else { (left, right) };
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}

/// Makes casts between text and UUID calls of functions, and the sides of comparisons comparable. It runs before
/// DataFusion's own coercion.
#[derive(Debug)]
pub(super) struct Coercion;

impl AnalyzerRule for Coercion {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> EngineResult<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(coerce_node)?.data)
    }

    fn name(&self) -> &str {
        "iceberg_coercion"
    }
}

fn coerce_node(plan: LogicalPlan) -> EngineResult<Transformed<LogicalPlan>> {
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
    }
    let names = NamePreserver::new(&plan);
    let rewritten = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(coerce(expr, &schema)?.update_data(|expr| name.restore(expr)))
    })?;
    let rewritten = if rewritten.transformed { rewritten.map_data(LogicalPlan::recompute_schema)? } else { rewritten };
    rewritten.map_data(|plan| with_uuids_of_aggregates(plan, &schema))
}

/// Says of the results of an aggregate that they are UUIDs, where they are.
fn with_uuids_of_aggregates(plan: LogicalPlan, input: &DFSchema) -> EngineResult<LogicalPlan> {
    let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(plan) };
    let groups = aggregate.schema.fields().len() - aggregate.aggr_expr.len();
    let is_untold = |index: usize| {
        let expr = index.checked_sub(groups).and_then(|index| aggregate.aggr_expr.get(index));
        expr.is_some_and(|expr| is_uuid(expr, input)) && !is_uuid_field(aggregate.schema.field(index))
    };
    if !(0..aggregate.schema.fields().len()).any(is_untold) {
        return Ok(plan);
    }
    let columns = aggregate.schema.iter().enumerate().map(|(index, (qualifier, field))| {
        let column = Expr::Column(Column::from((qualifier, field)));
        if is_untold(index) { TO_UUID.call(vec![column]).alias_qualified(qualifier.cloned(), field.name()) } else { column }
    });
    let columns = columns.collect();
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?))
}

/// The expression, coerced.
pub(super) fn coerce(expr: Expr, schema: &DFSchema) -> EngineResult<Transformed<Expr>> {
    expr.transform_up(|expr| {
        Ok(match expr {
            Expr::Cast(Cast { expr, field }) if is_uuid_field(&field) && is_text(&expr, schema) => {
                Transformed::yes(TO_UUID.call(vec![*expr]))
            }
            Expr::TryCast(TryCast { expr, field }) if is_uuid_field(&field) && is_text(&expr, schema) => {
                Transformed::yes(TRY_TO_UUID.call(vec![*expr]))
            }
            Expr::Cast(Cast { expr, field }) if field.data_type().is_string() && is_uuid(&expr, schema) => {
                let text = Expr::Cast(Cast { expr: Box::new(UUID_TEXT.call(vec![*expr])), field });
                Transformed::yes(text)
            }
            Expr::TryCast(TryCast { expr, field }) if field.data_type().is_string() && is_uuid(&expr, schema) => {
                let text = Expr::TryCast(TryCast { expr: Box::new(UUID_TEXT.call(vec![*expr])), field });
                Transformed::yes(text)
            }
            // Numbers are seconds, as in PostgreSQL; DataFusion knows that of nanoseconds only.
            Expr::Cast(Cast { expr, field }) if *field.data_type() == TIMESTAMP && is_of(&expr, &DataType::Int64, schema) => {
                let seconds = Expr::Cast(Cast::new(expr, TIMESTAMP_IN_SECONDS));
                Transformed::yes(Expr::Cast(Cast { expr: Box::new(seconds), field }))
            }
            Expr::ScalarFunction(function) if function.name() == "get_field" => key_of_map(function, schema)?,
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right })
                if loses_nulls(op, &left, &right) =>
            {
                let right = Box::new(with_hidden_column(*right));
                Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => comparable(*left, *right, schema)
                .update_data(|(left, right)| Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) })),
            Expr::InList(InList { expr, list, negated }) => {
                let all = comparable_to_all(*expr, list, schema);
                all.update_data(|(expr, list)| Expr::InList(InList { expr: Box::new(expr), list, negated }))
            }
            Expr::Between(Between { expr, negated, low, high }) => {
                let low = comparable(expr.as_ref().clone(), *low, schema);
                let high = comparable(*expr, *high, schema);
                let transformed = low.transformed || high.transformed;
                let ((low_expr, low), (high_expr, high)) = (low.data, high.data);
                if !transformed {
                    let (expr, low, high) = (Box::new(high_expr), Box::new(low), Box::new(high));
                    return Ok(Transformed::no(Expr::Between(Between { expr, negated, low, high })));
                }
                let within = low_expr.gt_eq(low).and(high_expr.lt_eq(high));
                Transformed::yes(if negated { Expr::Not(Box::new(within)) } else { within })
            }
            other => Transformed::no(other),
        })
    })
}

fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn comparable(left: Expr, right: Expr, schema: &DFSchema) -> Transformed<(Expr, Expr)> {
    if let Some(converted) = converted(&right, &left, schema) {
        Transformed::yes((left, converted))
    } else if let Some(converted) = converted(&left, &right, schema) {
        Transformed::yes((converted, right))
    } else {
        Transformed::no((left, right))
    }
}

fn comparable_to_all(expr: Expr, list: Vec<Expr>, schema: &DFSchema) -> Transformed<(Expr, Vec<Expr>)> {
    let other = |item: &&Expr| converted(&expr, item, schema).is_some();
    // The list decides for the one that is looked for, as in `'…' IN (id)`, and then that one for the rest of the list.
    let expr = match list.iter().find(other).and_then(|item| converted(&expr, item, schema)) {
        Some(converted) => converted,
        None => expr,
    };
    let list = list.into_iter().map(|item| converted(&item, &expr, schema).unwrap_or(item)).collect();
    Transformed::yes((expr, list))
}

/// `expr` in the type in which it can be compared with `other`, if it has to be converted.
fn converted(expr: &Expr, other: &Expr, schema: &DFSchema) -> Option<Expr> {
    let to = |data_type: DataType| Some(Expr::Cast(Cast::new(Box::new(expr.clone()), data_type)));
    if is_text(expr, schema) && is_uuid(other, schema) {
        return Some(TO_UUID.call(vec![expr.clone()]));
    }
    match (expr.get_type(schema).ok()?, other.get_type(schema).ok()?) {
        (TIME, TIME_IN_NANOSECONDS) => to(TIME_IN_NANOSECONDS),
        (from, moment @ DataType::Timestamp(TimeUnit::Microsecond, _)) if from.is_string() => to(moment),
        (DataType::Date32, TIMESTAMP) => to(TIMESTAMP),
        _ => None,
    }
}

/// A look-up in a map by a key of the map's own type.
fn key_of_map(function: ScalarFunction, schema: &DFSchema) -> EngineResult<Transformed<Expr>> {
    let ScalarFunction { func, mut args } = function;
    let map = match args.first().map(|map| map.get_type(schema)) {
        Some(Ok(DataType::Map(entries, _))) => entries,
        _ => return Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args }))),
    };
    let key_type = match map.data_type() {
        DataType::Struct(pair) => pair.first().map(|key| key.data_type().clone()),
        _ => None,
    };
    if let (Some(key_type), Some(Expr::Literal(key, _))) = (key_type, args.get_mut(1))
        && key.data_type() != key_type
    {
        *key = key.cast_to(&key_type)?;
        return Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args })));
    }
    Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args })))
}

/// What a column is compared with, and whether it must not be one of those.
fn values_of(expr: &Expr) -> Option<(&Expr, Vec<&Expr>, bool)> {
    match expr {
        Expr::InList(InList { expr, list, negated }) => Some((expr, list.iter().collect(), *negated)),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (left.as_ref(), right.as_ref()) {
            (Expr::Column(_), Expr::Literal(..)) => Some((left, vec![right], false)),
            (Expr::Literal(..), Expr::Column(_)) => Some((right, vec![left], false)),
            _ => None,
        },
        _ => None,
    }
}

/// Whether DataFusion would simplify two lists of values for one column to true or false, where they are NULL for a column
/// that is: `x IN (1) AND x IN (2)` is not false for a NULL.
fn loses_nulls(op: Operator, left: &Expr, right: &Expr) -> bool {
    let (Some((of, some, not_some)), Some((of_other, others, not_others))) = (values_of(left), values_of(right)) else {
        return false;
    };
    if of != of_other {
        return false;
    }
    let is_null = |expr: &&Expr| matches!(expr, Expr::Literal(value, _) if value.is_null());
    let common = some.iter().any(|value| others.contains(value));
    let nothing_left = match (op, not_some, not_others) {
        (Operator::And, false, false) | (Operator::Or, true, true) => !common,
        (Operator::And, false, true) => some.iter().all(|value| others.contains(value)),
        (Operator::And, true, false) => others.iter().all(|value| some.contains(value)),
        _ => false,
    };
    nothing_left || some.iter().any(is_null) || others.iter().any(is_null)
}

/// The comparison with its column in a function that hides it from the optimizer.
fn with_hidden_column(expr: Expr) -> Expr {
    match expr {
        Expr::InList(InList { expr, list, negated }) => {
            Expr::InList(InList { expr: Box::new(HIDDEN.call(vec![*expr])), list, negated })
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let hidden = |expr: Box<Expr>| match *expr {
                column @ Expr::Column(_) => Box::new(HIDDEN.call(vec![column])),
                other => Box::new(other),
            };
            Expr::BinaryExpr(BinaryExpr { left: hidden(left), op, right: hidden(right) })
        }
        other => other,
    }
}

static HIDDEN: LazyLock<ScalarUDF> =
    LazyLock::new(|| ScalarUDF::new_from_impl(Hidden { signature: Signature::any(1, Volatility::Immutable) }));

/// Its argument, as it is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Hidden {
    signature: Signature,
}

impl ScalarUDFImpl for Hidden {
    fn name(&self) -> &str {
        "hidden"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> EngineResult<DataType> {
        arguments.first().cloned().ok_or_else(|| plan_datafusion_err!("hidden takes one argument"))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> EngineResult<FieldRef> {
        args.arg_fields.first().cloned().ok_or_else(|| plan_datafusion_err!("hidden takes one argument"))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> EngineResult<ColumnarValue> {
        args.args.pop().ok_or_else(|| plan_datafusion_err!("hidden takes one argument"))
    }
}

/// Functions of which the result is one of the arguments, but without what DataFusion knew of them.
const PASS_ON: [&str; 10] =
    ["min", "max", "first_value", "last_value", "nth_value", "lag", "lead", "coalesce", "nullif", "greatest"];

// What has no type here is for DataFusion to tell.

fn is_uuid(expr: &Expr, schema: &DFSchema) -> bool {
    let (name, arguments) = match expr {
        Expr::AggregateFunction(function) => (function.func.name(), &function.params.args),
        Expr::ScalarFunction(function) if function.name() == "array_element" => {
            return match function.args.first().map(|list| list.get_type(schema)) {
                Some(Ok(DataType::List(element))) => is_uuid_field(&element),
                _ => false,
            };
        }
        Expr::ScalarFunction(function) => (function.func.name(), &function.args),
        Expr::Alias(alias) => return is_uuid(&alias.expr, schema),
        _ => return expr.to_field(schema).is_ok_and(|(_, field)| is_uuid_field(&field)),
    };
    let passes_on = PASS_ON.contains(&name) && is_of(expr, &DataType::FixedSizeBinary(16), schema);
    (passes_on && arguments.iter().any(|argument| is_uuid(argument, schema)))
        || expr.to_field(schema).is_ok_and(|(_, field)| is_uuid_field(&field))
}

fn is_text(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|of| of.is_string())
}

fn is_of(expr: &Expr, data_type: &DataType, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|of| of == *data_type)
}
