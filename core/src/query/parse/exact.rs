//! Numbers as they are written. DataFusion reads one with a fraction as a float, of which 16 digits are right.

use std::ops::ControlFlow;

use datafusion::sql::parser::{CopyToSource, Statement as EngineStatement};
use sqlparser::ast::{DataType, Expr, UnaryOperator, Value, ValueWithSpan, VisitMut, VisitorMut};

/// Makes a number text, of which the cast to a decimal keeps every digit; that cast knows no exponents.
pub(in crate::query) fn number_as_text(expr: &mut Expr) {
    let (sign, number) = match &*expr {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr: number } => ("-", number.as_ref()),
        Expr::Nested(inner) => {
            let mut inner = inner.as_ref().clone();
            number_as_text(&mut inner);
            *expr = inner;
            return;
        }
        number => ("", number),
    };
    let Expr::Value(ValueWithSpan { value: Value::Number(digits, _), span }) = number else { return };
    if !digits.bytes().all(|digit| digit.is_ascii_digit() || digit == b'.') {
        return;
    }
    let (text, span) = (Value::SingleQuotedString(format!("{sign}{digits}")), *span);
    *expr = Expr::Value(ValueWithSpan { value: text, span });
}

/// Keeps the digits of numbers that a statement casts to decimals.
pub(super) fn keep_digits(statement: &mut EngineStatement) {
    // Nothing breaks off.
    let _: ControlFlow<()> = match statement {
        EngineStatement::Statement(statement) => statement.visit(&mut DecimalCasts),
        EngineStatement::Explain(explain) => {
            keep_digits(&mut explain.statement);
            ControlFlow::Continue(())
        }
        EngineStatement::CopyTo(copy) => match &mut copy.source {
            CopyToSource::Query(query) => query.visit(&mut DecimalCasts),
            CopyToSource::Relation(_) => ControlFlow::Continue(()),
        },
        EngineStatement::CreateExternalTable(_) | EngineStatement::Reset(_) => ControlFlow::Continue(()),
    };
}

struct DecimalCasts;

impl VisitorMut for DecimalCasts {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { expr, data_type: DataType::Decimal(_) | DataType::Numeric(_) | DataType::Dec(_), .. } = expr {
            number_as_text(expr);
        }
        ControlFlow::Continue(())
    }
}
