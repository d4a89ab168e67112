//! Clauses that sqlparser takes and that nobody behind it looks at. A statement that has one does something else than it
//! says, so it is refused. Structs are taken apart without `..`, so that a new field does not go unseen.

use std::ops::ControlFlow;

use datafusion::sql::parser::{CopyToSource, Statement as EngineStatement};
use sqlparser::ast::{
    AlterTable, Expr, Insert, LimitClause, OrderBy, OrderByKind, Query, Select, SetExpr, Statement as SqlStatement, TableFactor,
    TableFunctionArgs, Visit, Visitor,
};
use tarndb_catalog::{Error, Result};

fn refused(clause: &str) -> Error {
    Error::unsupported(format!("{clause} is not supported"))
}

/// The first clause that is there.
fn first(clauses: &[(bool, &'static str)]) -> Option<&'static str> {
    clauses.iter().find(|(is_there, _)| *is_there).map(|(_, clause)| *clause)
}

/// Refuses a statement with a clause, at any depth, that would be ignored.
pub(super) fn refuse_ignored(statement: &EngineStatement) -> Result<()> {
    let ignored = match statement {
        EngineStatement::Statement(statement) => statement.visit(&mut Ignored),
        EngineStatement::Explain(explain) => return refuse_ignored(&explain.statement),
        EngineStatement::CopyTo(copy) => match &copy.source {
            CopyToSource::Query(query) => query.visit(&mut Ignored),
            CopyToSource::Relation(_) => ControlFlow::Continue(()),
        },
        EngineStatement::CreateExternalTable(_) | EngineStatement::Reset(_) => ControlFlow::Continue(()),
    };
    match ignored {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(clause) => Err(refused(clause)),
    }
}

/// Finds what DataFusion's planner ignores.
struct Ignored;

fn break_at(clause: Option<&'static str>) -> ControlFlow<&'static str> {
    clause.map_or(ControlFlow::Continue(()), ControlFlow::Break)
}

impl Visitor for Ignored {
    type Break = &'static str;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        let Query {
            with: _,
            body,
            order_by,
            limit_clause,
            fetch: _,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators: _,
        } = query;
        let limit_by = matches!(limit_clause, Some(LimitClause::LimitOffset { limit_by, .. }) if !limit_by.is_empty());
        let fill = order_by.as_ref().is_some_and(|OrderBy { kind, interpolate }| {
            let filled = match kind {
                OrderByKind::Expressions(exprs) => exprs.iter().any(|expr| expr.with_fill.is_some()),
                OrderByKind::All(_) => false,
            };
            filled || interpolate.is_some()
        });
        let subquery = |expr: &Expr| matches!(expr, Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. });
        let in_values = match body.as_ref() {
            SetExpr::Values(values) => values.rows.iter().any(|row| row.content.iter().any(subquery)),
            _ => false,
        };
        break_at(first(&[
            (in_values, "a subquery in VALUES"),
            (!locks.is_empty(), "SELECT … FOR UPDATE or SHARE"),
            (for_clause.is_some(), "FOR XML, JSON or BROWSE"),
            (settings.is_some(), "SETTINGS"),
            (format_clause.is_some(), "FORMAT"),
            (limit_by, "LIMIT … BY"),
            (fill, "ORDER BY … WITH FILL or INTERPOLATE"),
        ]))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        // It would be a search for a regular expression, anywhere in the text.
        break_at(first(&[(matches!(expr, Expr::SimilarTo { .. }), "SIMILAR TO")]))
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Self::Break> {
        let Select {
            select_token: _,
            // Comments, which may be ignored.
            optimizer_hints: _,
            distinct: _,
            select_modifiers,
            top: _,
            top_before_distinct: _,
            projection: _,
            exclude,
            into: _,
            from,
            lateral_views: _,
            prewhere,
            selection: _,
            connect_by,
            group_by: _,
            cluster_by: _,
            distribute_by,
            sort_by: _,
            having: _,
            named_window: _,
            qualify: _,
            window_before_qualify: _,
            value_table_mode,
            flavor: _,
        } = select;
        break_at(first(&[
            (select_modifiers.is_some(), "a modifier of SELECT"),
            (exclude.is_some(), "EXCLUDE after the columns"),
            (from.iter().any(|table| table.joins.iter().any(|join| join.global)), "GLOBAL JOIN"),
            (prewhere.is_some(), "PREWHERE"),
            (!connect_by.is_empty(), "CONNECT BY"),
            (!distribute_by.is_empty(), "DISTRIBUTE BY"),
            (value_table_mode.is_some(), "SELECT AS STRUCT or VALUE"),
        ]))
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<Self::Break> {
        let clause = match table {
            TableFactor::Table {
                name: _,
                alias: _,
                args,
                with_hints,
                version: _,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                let settings = matches!(args, Some(TableFunctionArgs { args: _, settings: Some(_) }));
                first(&[
                    (settings, "SETTINGS of a table function"),
                    (!with_hints.is_empty(), "WITH (…) after a table"),
                    (*with_ordinality, "WITH ORDINALITY"),
                    (!partitions.is_empty(), "PARTITION (…) after a table"),
                    (json_path.is_some(), "a path into a table"),
                    (sample.is_some(), "TABLESAMPLE"),
                    (!index_hints.is_empty(), "an index hint"),
                ])
            }
            TableFactor::Derived { lateral: _, subquery: _, alias: _, sample } => first(&[(sample.is_some(), "TABLESAMPLE")]),
            // DataFusion refuses what it does not know.
            _ => None,
        };
        break_at(clause)
    }
}

/// Refuses everything of an INSERT but a table, its columns and where the rows come from.
pub(super) fn check_insert(insert: &Insert) -> Result<()> {
    let Insert {
        insert_token: _,
        optimizer_hints: _,
        or,
        ignore,
        into: _,
        table: _,
        table_alias,
        columns: _,
        overwrite,
        source,
        assignments,
        partitioned,
        after_columns,
        has_table_keyword: _,
        on,
        returning,
        output,
        replace_into,
        priority,
        insert_alias,
        settings,
        format_clause,
        multi_table_insert_type,
        multi_table_into_clauses,
        multi_table_when_clauses,
        multi_table_else_clause,
    } = insert;
    let several = multi_table_insert_type.is_some()
        || !multi_table_into_clauses.is_empty()
        || !multi_table_when_clauses.is_empty()
        || multi_table_else_clause.is_some();
    let clause = first(&[
        (*overwrite || *replace_into || or.is_some(), "INSERT OVERWRITE, or one that replaces rows,"),
        (*ignore, "INSERT IGNORE"),
        (table_alias.is_some() || insert_alias.is_some(), "INSERT with an alias"),
        (source.is_none() || !assignments.is_empty(), "INSERT without VALUES or a query"),
        (partitioned.is_some() || !after_columns.is_empty(), "INSERT with PARTITION"),
        (on.is_some() || returning.is_some() || output.is_some(), "INSERT with ON, RETURNING or OUTPUT"),
        (priority.is_some(), "INSERT with a priority"),
        (settings.is_some() || format_clause.is_some(), "INSERT with SETTINGS or FORMAT"),
        (several, "INSERT into several tables"),
    ]);
    clause.map_or(Ok(()), |clause| Err(refused(clause)))
}

/// Refuses everything of an ALTER TABLE but a table and what happens to it.
pub(super) fn check_alter(alter: &AlterTable) -> Result<()> {
    let AlterTable { name: _, if_exists: _, only, operations: _, location, on_cluster, table_type, end_token: _ } = alter;
    let clause = first(&[
        (*only, "ALTER TABLE ONLY"),
        (location.is_some(), "ALTER TABLE with LOCATION"),
        (on_cluster.is_some(), "ALTER TABLE … ON CLUSTER"),
        (table_type.is_some(), "ALTER of another kind of table"),
    ]);
    clause.map_or(Ok(()), |clause| Err(refused(clause)))
}

/// Refuses a DROP of several tables, or of something else than a table of the lake.
pub(super) fn check_drop(statement: &SqlStatement) -> Result<()> {
    let SqlStatement::Drop { object_type: _, if_exists: _, names, cascade: _, restrict: _, purge: _, temporary, table } =
        statement
    else {
        return Ok(());
    };
    let clause = first(&[
        (names.len() != 1, "DROP TABLE of several tables at once"),
        (*temporary, "DROP TEMPORARY TABLE"),
        (table.is_some(), "DROP … ON"),
    ]);
    clause.map_or(Ok(()), |clause| Err(refused(clause)))
}
