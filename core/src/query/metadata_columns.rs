//! Metadata columns in SQL: `_file`, `_pos` and their kin, as Spark has them. DataFusion knows no columns that `*` leaves out. So
//! the tables of a statement get the metadata columns that it names, and its wildcards leave them out by name.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableProvider};
use datafusion::execution::SessionState;
use datafusion::logical_expr::lit;
use datafusion::sql::parser::{CopyToSource, Statement as EngineStatement};
use datafusion::sql::planner::object_name_to_table_reference;
use sqlparser::ast::{
    ExceptSelectItem, ExcludeSelectItem, Expr, FunctionArg, FunctionArgExpr, Ident, JoinConstraint, JoinOperator, ObjectName,
    Query, Select, SelectFlavor, SelectItem, SelectItemQualifiedWildcardKind, Statement as SqlStatement, TableFactor,
    TableWithJoins, Value, ValueWithSpan, Visit, VisitMut, Visitor, VisitorMut, WildcardAdditionalOptions,
};
use tarndb_catalog::{Error, Result};

use super::catalog_provider::LakeCatalogs;
use super::parse::normalize;
use super::table_provider::IcebergTableProvider;
use crate::error::engine_error;
use crate::scan::{MetadataColumn, MetadataColumns};

/// The query of a statement that has one.
fn query_of(statement: &mut EngineStatement) -> Option<&mut Query> {
    match statement {
        EngineStatement::Statement(statement) => match statement.as_mut() {
            SqlStatement::Query(query) => Some(query),
            _ => None,
        },
        EngineStatement::Explain(explain) => query_of(&mut explain.statement),
        EngineStatement::CopyTo(copy) => match &mut copy.source {
            CopyToSource::Query(query) => Some(query),
            CopyToSource::Relation(_) => None,
        },
        _ => None,
    }
}

/// Whether a statement is a query with the name of a metadata column somewhere.
pub(super) fn are_named(statement: &mut EngineStatement) -> bool {
    let mut found = Found::default();
    if let Some(query) = query_of(statement) {
        let _: ControlFlow<()> = Visit::visit(query, &mut found);
    }
    !found.bare.is_empty() || !found.qualified.is_empty()
}

/// Gives the tables of a query the metadata columns that it names; says whether there are any.
///
/// # Errors
/// `Unsupported` where wildcards cannot be kept from them.
pub(super) async fn expose(state: &SessionState, statement: &mut EngineStatement) -> Result<bool> {
    let Some(query) = query_of(statement) else { return Ok(false) };
    let mut found = Found::default();
    // Nothing breaks off.
    let _: ControlFlow<()> = Visit::visit(query, &mut found);
    if found.bare.is_empty() && found.qualified.is_empty() {
        return Ok(false);
    }
    let catalogs = state.catalog_list();
    let Some(catalogs) = LakeCatalogs::of(catalogs.as_ref()) else { return Ok(false) };
    let mut of_relations: HashMap<String, Vec<MetadataColumn>> = HashMap::new();
    let mut owned: HashSet<MetadataColumn> = HashSet::new();
    for (text, relation) in &found.relations {
        let Some(provider) = resolve(state, relation).await? else { continue };
        let Some(provider) = (provider.as_ref() as &dyn std::any::Any).downcast_ref::<IcebergTableProvider>() else { continue };
        if let Relation::Table(name) = relation
            && let [only] = name.0.as_slice()
            && only.as_ident().is_some_and(|ident| found.ctes.contains(&normalize(ident)))
        {
            let message = format!("metadata columns beside a common table expression `{name}`, which is also a table");
            return Err(Error::unsupported(format!("{message}: give it another name")));
        }
        let all =
            MetadataColumns::all(provider.table(), |column| found.bare.contains(&column) || found.qualified.contains(&column))?;
        of_relations.insert(text.clone(), all.columns().collect());
        owned.extend(provider.columns().fields().iter().filter_map(|field| MetadataColumn::from_name(field.name())));
    }
    // A name alone means the column that a table has of its own, if one does.
    let named: Vec<MetadataColumn> = found.bare.difference(&owned).chain(&found.qualified).copied().collect();
    of_relations.values_mut().for_each(|columns| columns.retain(|column| named.contains(column)));
    of_relations.retain(|_, columns| !columns.is_empty());
    if of_relations.is_empty() {
        return Ok(false);
    }
    let paths = found.relations.values().filter_map(|relation| match relation {
        Relation::IcebergScan(path) => Some(path.clone()),
        Relation::Table(_) => None,
    });
    catalogs.expose(named, paths.collect());
    match VisitMut::visit(query, &mut Wildcards(of_relations)) {
        ControlFlow::Continue(()) => Ok(true),
        ControlFlow::Break(error) => Err(error),
    }
}

/// A table as a query names it.
#[derive(Debug, Clone)]
enum Relation {
    Table(ObjectName),
    /// With its path.
    IcebergScan(String),
}

impl Relation {
    fn of(factor: &TableFactor) -> Option<Self> {
        match factor {
            TableFactor::Table { name, args: None, .. } => Some(Self::Table(name.clone())),
            TableFactor::Table { name, args: Some(args), .. } if is_iceberg_scan(name) => match args.args.as_slice() {
                [
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(ValueWithSpan {
                        value: Value::SingleQuotedString(path),
                        ..
                    }))),
                ] => Some(Self::IcebergScan(path.clone())),
                _ => None,
            },
            _ => None,
        }
    }
}

fn is_iceberg_scan(name: &ObjectName) -> bool {
    matches!(name.0.as_slice(), [only] if only.as_ident().is_some_and(|ident| normalize(ident) == "iceberg_scan"))
}

/// The table or table function, if there is one: planning tells of those that there are not.
async fn resolve(state: &SessionState, relation: &Relation) -> Result<Option<Arc<dyn TableProvider>>> {
    match relation {
        Relation::Table(name) => {
            let Ok(reference) = object_name_to_table_reference(name.clone(), true) else { return Ok(None) };
            let Ok(schema) = state.schema_for_ref(reference.clone()) else { return Ok(None) };
            schema.table(reference.table()).await.map_err(engine_error)
        }
        Relation::IcebergScan(path) => {
            let Some(function) = state.table_functions().get("iceberg_scan") else { return Ok(None) };
            let arguments = [lit(path.as_str())];
            function.create_table_provider_with_args(TableFunctionArgs::new(&arguments, state)).map(Some).map_err(engine_error)
        }
    }
}

/// What a query names.
#[derive(Default)]
struct Found {
    /// Metadata columns, named alone.
    bare: HashSet<MetadataColumn>,
    /// Metadata columns of a table.
    qualified: HashSet<MetadataColumn>,
    /// Tables by their text.
    relations: HashMap<String, Relation>,
    /// Names of common table expressions.
    ctes: HashSet<String>,
}

impl Visitor for Found {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.ctes.extend(ctes.map(|cte| normalize(&cte.alias.name)));
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let column = |ident: &Ident| MetadataColumn::from_name(&normalize(ident));
        match expr {
            Expr::Identifier(ident) => self.bare.extend(column(ident)),
            Expr::CompoundIdentifier(parts) => {
                self.bare.extend(parts.first().and_then(column));
                self.qualified.extend(parts.iter().skip(1).filter_map(column));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        self.relations.extend(Relation::of(factor).map(|relation| (key(factor), relation)));
        ControlFlow::Continue(())
    }
}

/// The table without its alias.
fn key(factor: &TableFactor) -> String {
    match factor {
        TableFactor::Table { name, args, .. } => {
            let args = args.iter().flat_map(|args| &args.args).map(|arg| format!("({arg})"));
            std::iter::once(name.to_string()).chain(args).collect()
        }
        other => other.to_string(),
    }
}

/// Takes metadata columns out of what `*` means.
struct Wildcards(HashMap<String, Vec<MetadataColumn>>);

impl Wildcards {
    /// The metadata columns of a table of the query.
    fn of(&self, factor: &TableFactor) -> &[MetadataColumn] {
        self.0.get(&key(factor)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a table in the relation has any.
    fn is_in(&self, factor: &TableFactor) -> bool {
        match factor {
            TableFactor::NestedJoin { table_with_joins, .. } => {
                let joined = table_with_joins.joins.iter().map(|join| &join.relation);
                std::iter::once(&table_with_joins.relation).chain(joined).any(|factor| self.is_in(factor))
            }
            other => !self.of(other).is_empty(),
        }
    }

    fn in_select(&self, select: &mut Select) -> Result<()> {
        let mut from = From::default();
        for table in &select.from {
            from.add(table);
        }
        let exposed = |relation: &&TableFactor| !self.of(relation).is_empty();
        if !from.relations.iter().chain(&from.not_in_star).any(exposed) {
            return match from.named_joins.iter().find(|join| self.is_in(join)) {
                Some(_) => Err(Error::unsupported("metadata columns of tables in parentheses that have an alias")),
                None => Ok(()),
            };
        }
        let has_names = |relation: &&TableFactor| matches!(relation, TableFactor::Table { alias: Some(alias), .. } if !alias.columns.is_empty());
        if from.relations.iter().filter(|relation| exposed(relation)).any(has_names) {
            return Err(Error::unsupported("metadata columns of a table whose columns have other names: `t AS a (x, y)`"));
        }
        if from.natural {
            return Err(Error::unsupported("metadata columns of tables that are joined by NATURAL: write ON"));
        }
        let (relations, merged) = (from.relations, from.using);
        if select.projection.is_empty() && matches!(select.flavor, SelectFlavor::FromFirstNoSelect) {
            select.projection.push(SelectItem::Wildcard(WildcardAdditionalOptions::default()));
            select.flavor = SelectFlavor::FromFirst;
        }
        let mut projection = Vec::with_capacity(select.projection.len());
        for item in std::mem::take(&mut select.projection) {
            match item {
                SelectItem::Wildcard(mut options) => match relations.as_slice() {
                    [only] => {
                        leave_out(&mut options, self.of(only));
                        projection.push(SelectItem::Wildcard(options));
                    }
                    _ => {
                        let plain = !merged && options.opt_except.is_none() && options.opt_exclude.is_none();
                        let names: Option<Vec<ObjectName>> = relations.iter().map(|relation| qualifier(relation)).collect();
                        let Some(names) = names.filter(|_| plain) else {
                            let message = "`*` beside metadata columns of one of several tables: write `t.*` for each of them";
                            return Err(Error::unsupported(message));
                        };
                        for (name, relation) in names.into_iter().zip(&relations) {
                            let mut options = options.clone();
                            leave_out(&mut options, self.of(relation));
                            let kind = SelectItemQualifiedWildcardKind::ObjectName(name);
                            projection.push(SelectItem::QualifiedWildcard(kind, options));
                        }
                    }
                },
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), mut options) => {
                    let is_meant = |relation: &&&TableFactor| qualifier(relation).is_some_and(|of| same_name(&of, &name));
                    if let Some(relation) = relations.iter().find(is_meant) {
                        leave_out(&mut options, self.of(relation));
                    }
                    projection.push(SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options));
                }
                other => projection.push(other),
            }
        }
        select.projection = projection;
        Ok(())
    }
}

impl VisitorMut for Wildcards {
    type Break = Error;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        match self.in_select(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// What a FROM is made of.
#[derive(Default)]
struct From<'a> {
    /// In the order in which `*` has them.
    relations: Vec<&'a TableFactor>,
    /// Sides of joins that only decide which rows of the other side come out.
    not_in_star: Vec<&'a TableFactor>,
    /// Joins in parentheses with an alias of their own.
    named_joins: Vec<&'a TableFactor>,
    natural: bool,
    using: bool,
}

impl<'a> From<'a> {
    fn add(&mut self, table: &'a TableWithJoins) {
        let first = self.relations.len();
        self.add_factor(&table.relation);
        for join in &table.joins {
            let before = self.relations.len();
            self.add_factor(&join.relation);
            match &join.join_operator {
                JoinOperator::Semi(_) | JoinOperator::LeftSemi(_) | JoinOperator::Anti(_) | JoinOperator::LeftAnti(_) => {
                    self.not_in_star.extend(self.relations.drain(before..));
                }
                JoinOperator::RightSemi(_) | JoinOperator::RightAnti(_) => {
                    self.not_in_star.extend(self.relations.drain(first..before));
                }
                JoinOperator::Join(of)
                | JoinOperator::Inner(of)
                | JoinOperator::Left(of)
                | JoinOperator::LeftOuter(of)
                | JoinOperator::Right(of)
                | JoinOperator::RightOuter(of)
                | JoinOperator::FullOuter(of) => {
                    self.natural |= matches!(of, JoinConstraint::Natural);
                    self.using |= matches!(of, JoinConstraint::Using(_));
                }
                _ => {}
            }
        }
    }

    fn add_factor(&mut self, factor: &'a TableFactor) {
        match factor {
            TableFactor::NestedJoin { table_with_joins, alias: None } => self.add(table_with_joins),
            TableFactor::NestedJoin { .. } => {
                self.named_joins.push(factor);
                self.relations.push(factor);
            }
            other => self.relations.push(other),
        }
    }
}

/// By what a relation's columns are qualified.
fn qualifier(factor: &TableFactor) -> Option<ObjectName> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::TableFunction { alias: Some(alias), .. }
        | TableFactor::UNNEST { alias: Some(alias), .. } => Some(ObjectName::from(vec![alias.name.clone()])),
        TableFactor::Table { name, args: None, .. } => Some(name.clone()),
        _ => None,
    }
}

fn same_name(a: &ObjectName, b: &ObjectName) -> bool {
    let parts = |name: &ObjectName| name.0.iter().map(|part| part.as_ident().map(normalize)).collect::<Vec<_>>();
    parts(a).ends_with(&parts(b))
}

/// Adds columns to those that a wildcard leaves out.
fn leave_out(options: &mut WildcardAdditionalOptions, columns: &[MetadataColumn]) {
    let excluded = |name: &str| match &options.opt_exclude {
        None => false,
        Some(ExcludeSelectItem::Single(only)) => only.to_string() == name,
        Some(ExcludeSelectItem::Multiple(all)) => all.iter().any(|each| each.to_string() == name),
    };
    let names = columns.iter().map(|column| column.name()).filter(|name| !excluded(name));
    let mut left_out: Vec<Ident> = Vec::new();
    if let Some(ExceptSelectItem { first_element, additional_elements }) = options.opt_except.take() {
        left_out.push(first_element);
        left_out.extend(additional_elements);
        // DataFusion takes these names as they are written.
        left_out.retain(|ident| ident.quote_style.is_some() || MetadataColumn::from_name(&normalize(ident)).is_none());
    }
    for name in names.collect::<Vec<_>>() {
        if left_out.iter().all(|ident| ident.value != name) {
            left_out.push(Ident::new(name));
        }
    }
    let mut left_out = left_out.into_iter();
    options.opt_except =
        left_out.next().map(|first_element| ExceptSelectItem { first_element, additional_elements: left_out.collect() });
}
