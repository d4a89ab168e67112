use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column, InListExpr, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use futures::FutureExt;
use futures::future::BoxFuture;
use iceberg::spec::Schema;
use object_store::ObjectStore;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::file::metadata::ParquetMetaData;
use roaring::RoaringTreemap;
use tarndb_catalog::Result;

use super::plan::ScanTask;
use crate::bloom_filters::filtered_columns;
use crate::error::engine_error;
use crate::positions::{Directory, Embedded, Found, PositionsByFile, ValueColumns, decode_positions};
use crate::table::{Environment, Table};

/// What filters ask of columns of which data files tell the rows by value, or by bloom filters that they have none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// One of some values, in a column or in a key of a map.
    Value {
        column: i32,
        key: Option<String>,
        values: Vec<String>,
    },
    All(Vec<Lookup>),
    Any(Vec<Lookup>),
}

/// The columns that can be asked.
struct Columns<'a> {
    schema: &'a Schema,
    ids: HashSet<i32>,
}

impl Lookup {
    /// What filters ask of a table, all of which have to hold; `None` when that is nothing that its files tell.
    pub(super) fn of<'a>(table: &Table, filters: impl Iterator<Item = &'a Arc<dyn PhysicalExpr>>) -> Option<Self> {
        let ids: HashSet<i32> = ValueColumns::of(table.metadata()).ids().chain(filtered_columns(table.metadata())).collect();
        if ids.is_empty() {
            return None;
        }
        let columns = Columns { schema: table.schema(), ids };
        Self::all(filters.filter_map(|filter| columns.lookup(filter)).collect())
    }

    /// All of these.
    fn all(mut lookups: Vec<Self>) -> Option<Self> {
        if lookups.len() < 2 {
            return lookups.pop();
        }
        // A long chain is no deep tree.
        let flat = lookups.into_iter().flat_map(|lookup| match lookup {
            Self::All(lookups) => lookups,
            other => vec![other],
        });
        Some(Self::All(flat.collect()))
    }

    /// Whether any row of the task's file may match, as far as bloom filters tell.
    ///
    /// # Errors
    /// The storage's.
    pub(super) fn may_match<'a>(
        &'a self,
        env: &'a Environment,
        task: &'a ScanTask,
        reader: &'a mut (dyn AsyncFileReader + Send),
        footer: &'a ParquetMetaData,
    ) -> BoxFuture<'a, Result<bool>> {
        async move {
            match self {
                Self::Value { key: Some(_), .. } => Ok(true),
                Self::Value { column, key: None, values } => {
                    env.bloom_filters.may_have((&task.path, task.file_size), reader, footer, (*column, values)).await
                }
                Self::All(lookups) => {
                    for lookup in lookups {
                        if !lookup.may_match(env, task, reader, footer).await? {
                            return Ok(false);
                        }
                    }
                    Ok(true)
                }
                Self::Any(lookups) => {
                    for lookup in lookups {
                        if lookup.may_match(env, task, reader, footer).await? {
                            return Ok(true);
                        }
                    }
                    Ok(false)
                }
            }
        }
        .boxed()
    }

    /// The rows of the task's file that may match by their values; `None` when any may.
    ///
    /// # Errors
    /// `DataInvalid` for sets that are damaged; the storage's.
    pub(super) async fn rows(
        &self,
        env: &Environment,
        task: &ScanTask,
        reader: &mut (dyn AsyncFileReader + Send),
        footer: &ParquetMetaData,
    ) -> Result<Option<RoaringTreemap>> {
        let directory = match env.positions.directory(&task.path).await {
            Some(known) => known,
            None => {
                let read = directory(task, reader, footer).await?.map(Arc::new);
                env.positions.put_directory(&task.path, read.clone()).await;
                read
            }
        };
        let Some(directory) = directory else { return Ok(None) };
        self.found(&Sets { env, path: &task.path, directory: &directory }).await
    }

    fn found<'a>(&'a self, sets: &'a Sets<'a>) -> BoxFuture<'a, Result<Option<RoaringTreemap>>> {
        async move {
            let mut rows = RoaringTreemap::new();
            match self {
                Self::Value { column, key, values } => {
                    let mut places = Vec::new();
                    for value in values {
                        match sets.directory.find(*column, key.as_deref(), value) {
                            Found::Unknown => return Ok(None),
                            Found::Nowhere => {}
                            Found::Rows(offset, length) => places.push((offset, length)),
                        }
                    }
                    for set in sets.read(places).await? {
                        rows |= set.as_ref();
                    }
                    Ok(Some(rows))
                }
                Self::Any(lookups) => {
                    for lookup in lookups {
                        let Some(found) = lookup.found(sets).await? else { return Ok(None) };
                        rows |= found;
                    }
                    Ok(Some(rows))
                }
                Self::All(lookups) => {
                    let mut all: Option<RoaringTreemap> = None;
                    for lookup in lookups {
                        if all.as_ref().is_some_and(RoaringTreemap::is_empty) {
                            break;
                        }
                        all = match (all, lookup.found(sets).await?) {
                            (Some(rows), Some(found)) => Some(rows & found),
                            (rows, found) => rows.or(found),
                        };
                    }
                    Ok(all)
                }
            }
        }
        .boxed()
    }
}

/// Where the sets of a file are, if it has any.
async fn directory(
    task: &ScanTask,
    reader: &mut (dyn AsyncFileReader + Send),
    footer: &ParquetMetaData,
) -> Result<Option<Directory>> {
    let Some(embedded) = Embedded::of(footer, task.file_size) else { return Ok(None) };
    let bytes = reader.get_bytes(embedded.directory()).await.map_err(|e| engine_error(e.into()))?;
    Directory::decode(&bytes, &embedded).map_err(|e| e.with_context("file", task.path.clone()))
}

/// The sets of one file.
struct Sets<'a> {
    env: &'a Environment,
    path: &'a str,
    directory: &'a Directory,
}

impl Sets<'_> {
    /// The sets at these places. Those that are not known are read together.
    async fn read(&self, places: Vec<(u64, u64)>) -> Result<Vec<Arc<RoaringTreemap>>> {
        let (cache, storage) = (&self.env.positions, &self.env.storage);
        let (mut sets, mut unknown) = (Vec::with_capacity(places.len()), Vec::new());
        for place in places {
            let known = cache.get(&(self.path.to_string(), Some(place))).await;
            match known.and_then(|known| known.get(self.path).cloned()) {
                Some(set) => sets.push(set),
                None => unknown.push(place),
            }
        }
        let ranges: Vec<Range<u64>> = unknown.iter().map(|(offset, length)| *offset..offset + length).collect();
        let blobs = storage.object_store().get_ranges(&storage.path(self.path)?, &ranges).await?;
        for (place, blob) in unknown.into_iter().zip(blobs) {
            let set = Arc::new(decode_positions(&blob).map_err(|e| e.with_context("file", self.path))?);
            let by_file = PositionsByFile::from([(self.path.to_string(), Arc::clone(&set))]);
            cache.put((self.path.to_string(), Some(place)), Arc::new(by_file)).await;
            sets.push(set);
        }
        Ok(sets)
    }
}

impl Columns<'_> {
    fn lookup(&self, filter: &Arc<dyn PhysicalExpr>) -> Option<Lookup> {
        if let Some(list) = filter.downcast_ref::<InListExpr>() {
            // NULL is none that a row has.
            let is_null =
                |expr: &&Arc<dyn PhysicalExpr>| expr.downcast_ref::<Literal>().is_some_and(|literal| literal.value().is_null());
            let values = list.list().iter().filter(|expr| !is_null(expr)).map(text).collect::<Option<Vec<_>>>()?;
            return if list.negated() { None } else { self.value(list.expr(), values) };
        }
        let binary = filter.downcast_ref::<BinaryExpr>()?;
        let (left, right) = (binary.left(), binary.right());
        match binary.op() {
            Operator::And => Lookup::all([left, right].into_iter().filter_map(|side| self.lookup(side)).collect()),
            Operator::Or => {
                let sides = [self.lookup(left)?, self.lookup(right)?];
                // A long chain is no deep tree.
                let flat = sides.into_iter().flat_map(|side| match side {
                    Lookup::Any(sides) => sides,
                    other => vec![other],
                });
                Some(Lookup::Any(flat.collect()))
            }
            Operator::Eq => match (text(left), text(right)) {
                (None, Some(value)) => self.value(left, vec![value]),
                (Some(value), None) => self.value(right, vec![value]),
                _ => None,
            },
            _ => None,
        }
    }

    fn value(&self, of: &Arc<dyn PhysicalExpr>, values: Vec<String>) -> Option<Lookup> {
        if let Some(cast) = of.downcast_ref::<CastExpr>() {
            // From one kind of text to another; what is no text is no column that can be asked.
            return if cast.cast_type().is_string() { self.value(cast.expr(), values) } else { None };
        }
        let (column, key) = match of.downcast_ref::<ScalarFunctionExpr>() {
            None => (of, None),
            Some(function) => match (function.name(), function.args()) {
                ("get_field", [map, key]) => (map, Some(text(key)?)),
                _ => return None,
            },
        };
        let field = self.schema.field_by_name(column.downcast_ref::<Column>()?.name())?;
        let is_asked = self.ids.contains(&field.id) && field.field_type.is_primitive() == key.is_none();
        is_asked.then_some(Lookup::Value { column: field.id, key, values })
    }
}

fn text(expr: &Arc<dyn PhysicalExpr>) -> Option<String> {
    let value: &ScalarValue = expr.downcast_ref::<Literal>()?.value();
    value.try_as_str()?.map(str::to_string)
}
