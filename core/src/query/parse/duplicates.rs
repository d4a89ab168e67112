use std::collections::HashMap;

use datafusion::sql::parser::Statement as EngineStatement;
use sqlparser::ast::{Ident, Query, SelectItem, SetExpr, Statement as SqlStatement};

/// Gives each column of a query a name of its own, as DuckDB does (`k`, `k_1`): DataFusion wants that.
pub(super) fn name(statement: &mut EngineStatement) {
    let EngineStatement::Statement(statement) = statement else { return };
    match statement.as_mut() {
        SqlStatement::Query(query) => in_query(query),
        SqlStatement::Insert(insert) => {
            if let Some(source) = &mut insert.source {
                in_query(source);
            }
        }
        _ => {}
    }
}

fn in_query(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let mut seen: HashMap<String, usize> = HashMap::new();
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) = item {
            let text = expr.to_string();
            let times = seen.entry(text.clone()).or_default();
            if *times > 0 {
                let alias = Ident::with_quote('"', format!("{text}_{times}"));
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
            *times += 1;
        }
    }
}
