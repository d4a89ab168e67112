//! UUIDs in SQL. They are 16 bytes with the Arrow extension `arrow.uuid`, which DataFusion neither casts to and from text
//! nor compares with it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryBuilder, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result as EngineResult, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::expr::{Between, BinaryExpr, Cast, InList, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr, TypePlanner};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use sqlparser::ast::BinaryOperator;
use uuid::Uuid;

const EXTENSION_KEY: &str = "ARROW:extension:name";
const EXTENSION: &str = "arrow.uuid";

/// Whether a field holds UUIDs.
pub(super) fn is_uuid_field(field: &Field) -> bool {
    *field.data_type() == DataType::FixedSizeBinary(16)
        && field.metadata().get(EXTENSION_KEY).is_some_and(|name| name == EXTENSION)
}

fn uuid_field(name: &str) -> FieldRef {
    let metadata = HashMap::from([(EXTENSION_KEY.to_string(), EXTENSION.to_string())]);
    Arc::new(Field::new(name, DataType::FixedSizeBinary(16), true).with_metadata(metadata))
}

/// The type `UUID` of SQL.
#[derive(Debug)]
pub(super) struct UuidType;

impl TypePlanner for UuidType {
    fn plan_type_field(&self, sql_type: &sqlparser::ast::DataType) -> EngineResult<Option<FieldRef>> {
        Ok(matches!(sql_type, sqlparser::ast::DataType::Uuid).then(|| uuid_field("uuid")))
    }
}

/// Reads text as UUID where it is compared with one: DataFusion asks for the type of a comparison before [`TextAsUuid`]
/// has seen it.
#[derive(Debug)]
pub(super) struct UuidComparison;

impl ExprPlanner for UuidComparison {
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
        let (left, right) = if compares { both_uuids(left, right, schema).data } else { (left, right) };
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}

/// Makes casts between text and UUID, and comparisons of the two, calls of functions that do it. It runs before types are
/// coerced.
#[derive(Debug)]
pub(super) struct TextAsUuid;

impl AnalyzerRule for TextAsUuid {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> EngineResult<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(rewrite_node)?.data)
    }

    fn name(&self) -> &str {
        "text_as_uuid"
    }
}

fn rewrite_node(plan: LogicalPlan) -> EngineResult<Transformed<LogicalPlan>> {
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
    }
    let names = NamePreserver::new(&plan);
    let rewritten = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(with_uuids(expr, &schema)?.update_data(|expr| name.restore(expr)))
    })?;
    if !rewritten.transformed {
        return Ok(rewritten);
    }
    rewritten.map_data(LogicalPlan::recompute_schema)
}

/// The expression with text read as UUID where one is meant.
pub(super) fn with_uuids(expr: Expr, schema: &DFSchema) -> EngineResult<Transformed<Expr>> {
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
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => both_uuids(*left, *right, schema)
                .update_data(|(left, right)| Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) })),
            Expr::InList(InList { expr, list, negated }) if is_uuid(&expr, schema) => {
                let list = list.into_iter().map(|item| text_to_uuid(item, schema)).collect();
                Transformed::yes(Expr::InList(InList { expr, list, negated }))
            }
            Expr::Between(Between { expr, negated, low, high }) if is_uuid(&expr, schema) => {
                let bound = |of: Box<Expr>| Box::new(text_to_uuid(*of, schema));
                Transformed::yes(Expr::Between(Between { expr, negated, low: bound(low), high: bound(high) }))
            }
            other => Transformed::no(other),
        })
    })
}

fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn both_uuids(left: Expr, right: Expr, schema: &DFSchema) -> Transformed<(Expr, Expr)> {
    if is_uuid(&left, schema) && is_text(&right, schema) {
        Transformed::yes((left, TO_UUID.call(vec![right])))
    } else if is_text(&left, schema) && is_uuid(&right, schema) {
        Transformed::yes((TO_UUID.call(vec![left]), right))
    } else {
        Transformed::no((left, right))
    }
}

fn text_to_uuid(expr: Expr, schema: &DFSchema) -> Expr {
    if is_text(&expr, schema) { TO_UUID.call(vec![expr]) } else { expr }
}

fn is_uuid(expr: &Expr, schema: &DFSchema) -> bool {
    // What has no type here is for DataFusion to tell.
    expr.to_field(schema).is_ok_and(|(_, field)| is_uuid_field(&field))
}

fn is_text(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|of| of.is_string())
}

/// What a function of this file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Conversion {
    ToUuid,
    /// Text that is no UUID becomes NULL.
    TryToUuid,
    ToText,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Convert {
    conversion: Conversion,
    signature: Signature,
}

static TO_UUID: LazyLock<ScalarUDF> = LazyLock::new(|| Convert::function(Conversion::ToUuid));
static TRY_TO_UUID: LazyLock<ScalarUDF> = LazyLock::new(|| Convert::function(Conversion::TryToUuid));
static UUID_TEXT: LazyLock<ScalarUDF> = LazyLock::new(|| Convert::function(Conversion::ToText));

impl Convert {
    fn function(conversion: Conversion) -> ScalarUDF {
        ScalarUDF::new_from_impl(Self { conversion, signature: Signature::any(1, Volatility::Immutable) })
    }

    fn uuids(&self, values: &ArrayRef) -> EngineResult<ArrayRef> {
        let text = cast(values, &DataType::Utf8)?;
        let mut uuids = FixedSizeBinaryBuilder::with_capacity(text.len(), 16);
        for value in text.as_string::<i32>() {
            match (value.map(Uuid::parse_str), value) {
                (Some(Ok(uuid)), _) => uuids.append_value(uuid.as_bytes())?,
                (Some(Err(_)), Some(text)) if self.conversion == Conversion::ToUuid => {
                    return exec_err!("`{text}` is not a UUID: write it as 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6'");
                }
                _ => uuids.append_null(),
            }
        }
        Ok(Arc::new(uuids.finish()))
    }
}

impl ScalarUDFImpl for Convert {
    fn name(&self) -> &str {
        match self.conversion {
            Conversion::ToUuid => "to_uuid",
            Conversion::TryToUuid => "try_to_uuid",
            Conversion::ToText => "uuid_text",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> EngineResult<DataType> {
        Ok(if self.conversion == Conversion::ToText { DataType::Utf8 } else { DataType::FixedSizeBinary(16) })
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs<'_>) -> EngineResult<FieldRef> {
        Ok(match self.conversion {
            Conversion::ToText => Arc::new(Field::new(self.name(), DataType::Utf8, true)),
            Conversion::ToUuid | Conversion::TryToUuid => uuid_field(self.name()),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> EngineResult<ColumnarValue> {
        let [value] = args.args.as_slice() else {
            return plan_err!("{} takes one argument", self.name());
        };
        let values = match value {
            ColumnarValue::Array(values) => Arc::clone(values),
            ColumnarValue::Scalar(value) => value.to_array()?,
        };
        let converted = match self.conversion {
            Conversion::ToText => text(&values)?,
            Conversion::ToUuid | Conversion::TryToUuid => self.uuids(&values)?,
        };
        Ok(match value {
            ColumnarValue::Array(_) => ColumnarValue::Array(converted),
            ColumnarValue::Scalar(_) => ColumnarValue::Scalar(ScalarValue::try_from_array(&converted, 0)?),
        })
    }
}

fn text(values: &ArrayRef) -> EngineResult<ArrayRef> {
    let Some(uuids) = values.as_fixed_size_binary_opt() else {
        return exec_err!("{} is not the type of a UUID", values.data_type());
    };
    let mut text = StringBuilder::new();
    for value in uuids {
        text.append_option(value.and_then(|bytes| Uuid::from_slice(bytes).ok()).map(|uuid| uuid.to_string()));
    }
    Ok(Arc::new(text.finish()))
}
