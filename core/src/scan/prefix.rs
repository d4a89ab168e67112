use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, LikeExpr, Literal};

use crate::writer::successor;

/// Whether a filter may keep more rows than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeps {
    Same,
    SameOrMore,
}

/// The filter with ranges in the place of `LIKE 'prefix%'`, to which DataFusion turns `starts_with` too: bounds prune by ranges.
/// DataFusion 54 would compare bounds that are views of strings with strings that are none, which fails, and then nothing of the
/// filter prunes.
pub(super) fn with_ranges(filter: &Arc<dyn PhysicalExpr>, keeps: Keeps) -> Arc<dyn PhysicalExpr> {
    if let Some(like) = filter.downcast_ref::<LikeExpr>() {
        return range(like, keeps).unwrap_or_else(|| Arc::clone(filter));
    }
    // Below anything else, more rows could become fewer, and DataFusion prunes by nothing else.
    match filter.downcast_ref::<BinaryExpr>().map(|binary| (binary, binary.op())) {
        Some((binary, op @ (Operator::And | Operator::Or))) => {
            let side = |side| with_ranges(side, keeps);
            Arc::new(BinaryExpr::new(side(binary.left()), *op, side(binary.right())))
        }
        _ => Arc::clone(filter),
    }
}

fn range(like: &LikeExpr, keeps: Keeps) -> Option<Arc<dyn PhysicalExpr>> {
    let pattern = like.pattern().downcast_ref::<Literal>()?.value();
    let text = pattern.try_as_str()??;
    let (prefix, rest) = split_prefix(text);
    let is_prefix = !rest.is_empty() && rest.chars().all(|wildcard| wildcard == '%');
    let can_be_range = match keeps {
        Keeps::Same => is_prefix,
        Keeps::SameOrMore => is_prefix || !like.negated(),
    };
    if like.case_insensitive() || prefix.is_empty() || !can_be_range {
        return None;
    }
    let compare = |op, bound: String| -> Option<Arc<dyn PhysicalExpr>> {
        let bound = ScalarValue::Utf8(Some(bound)).cast_to(&pattern.data_type()).ok()?;
        Some(Arc::new(BinaryExpr::new(Arc::clone(like.expr()), op, Arc::new(Literal::new(bound)))))
    };
    let end = if rest.is_empty() { None } else { successor(&prefix) };
    Some(match (like.negated(), rest.is_empty(), end) {
        (false, true, _) => compare(Operator::Eq, prefix)?,
        (false, false, None) => compare(Operator::GtEq, prefix)?,
        (false, false, Some(end)) => {
            Arc::new(BinaryExpr::new(compare(Operator::GtEq, prefix)?, Operator::And, compare(Operator::Lt, end)?))
        }
        (true, _, None) => compare(Operator::Lt, prefix)?,
        (true, _, Some(end)) => {
            Arc::new(BinaryExpr::new(compare(Operator::Lt, prefix)?, Operator::Or, compare(Operator::GtEq, end)?))
        }
    })
}

/// What every string that the pattern matches begins with, and what of the pattern follows.
fn split_prefix(pattern: &str) -> (String, &str) {
    let mut prefix = String::new();
    let mut chars = pattern.chars();
    loop {
        let rest = chars.as_str();
        match chars.next() {
            None | Some('%' | '_') => return (prefix, rest),
            // What follows stands for itself. At the end, systems differ in what it means.
            Some('\\') => match chars.next() {
                Some(escaped) => prefix.push(escaped),
                None => return (prefix, rest),
            },
            Some(other) => prefix.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::physical_expr::expressions::Column;

    use super::*;

    fn like(negated: bool, case_insensitive: bool, pattern: &str) -> Arc<dyn PhysicalExpr> {
        let pattern = Literal::new(ScalarValue::Utf8View(Some(pattern.to_string())));
        Arc::new(LikeExpr::new(negated, case_insensitive, Arc::new(Column::new("s", 0)), Arc::new(pattern)))
    }

    #[test]
    fn prefixes_become_ranges() {
        let cases = [
            (false, "img/%", Some("s@0 >= img/ AND s@0 < img0"), true),
            (false, "a\\_b\\%%%", Some("s@0 >= a_b% AND s@0 < a_b&"), true),
            (false, "\u{10FFFF}%", Some("s@0 >= \u{10FFFF}"), true),
            (true, "img/%", Some("s@0 < img/ OR s@0 >= img0"), true),
            (false, "a_c%", Some("s@0 >= a AND s@0 < b"), false),
            (false, "a%c", Some("s@0 >= a AND s@0 < b"), false),
            (false, "ab\\", Some("s@0 >= ab AND s@0 < ac"), false),
            (false, "abc", Some("s@0 = abc"), false),
            (true, "a%c", None, false),
            (true, "abc", None, false),
            (false, "%a", None, false),
            (false, "", None, false),
        ];
        for (negated, pattern, range, is_same) in cases {
            let filter = like(negated, false, pattern);
            let shown = |keeps| with_ranges(&filter, keeps).to_string();
            assert_eq!(shown(Keeps::SameOrMore), range.map_or(filter.to_string(), str::to_string), "{pattern}");
            let same = range.filter(|_| is_same);
            assert_eq!(shown(Keeps::Same), same.map_or(filter.to_string(), str::to_string), "{pattern}");
            let filter = like(negated, true, pattern);
            assert_eq!(with_ranges(&filter, Keeps::SameOrMore).to_string(), filter.to_string(), "{pattern}");
        }
        let both: Arc<dyn PhysicalExpr> =
            Arc::new(BinaryExpr::new(like(false, false, "a%"), Operator::Or, like(false, false, "b%b")));
        let both = with_ranges(&both, Keeps::SameOrMore).to_string();
        assert_eq!(both, "s@0 >= a AND s@0 < b OR s@0 >= b AND s@0 < c");
    }
}
