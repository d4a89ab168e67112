use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema as ArrowSchema, SchemaRef};
use datafusion::common::ScalarValue;
use iceberg::spec::{Literal, NameMapping, Transform};
use tarndb_catalog::{Error, Result};

use super::field_ids::Absent;
use super::name_mapping;
use super::plan::ScanTask;
use crate::table::{Table, engine_type, partition_scalar};

/// A field of a partition spec whose value is that of a column.
#[derive(Debug)]
struct IdentityField {
    position: usize,
    source_id: i32,
    data_type: DataType,
}

/// The columns that are read from files: how they are found, what stands for those that a file lacks, and the types in which
/// they come out.
#[derive(Debug, Clone)]
pub(crate) struct ReadSchema {
    /// With the ids of nested fields too.
    pub(super) with_ids: SchemaRef,
    pub(super) output: SchemaRef,
    /// Ids for files that have none.
    pub(super) mapping: Option<Arc<NameMapping>>,
    defaults: Arc<HashMap<i32, ScalarValue>>,
    /// By partition spec.
    identity: Arc<HashMap<i32, Vec<IdentityField>>>,
}

impl ReadSchema {
    /// For files of `table`: `with_ids` finds the columns, `output` is what comes out.
    ///
    /// # Errors
    /// `DataInvalid` when the table's name mapping is not one.
    pub(crate) fn new(table: &Table, with_ids: SchemaRef, output: SchemaRef) -> Result<Self> {
        let metadata = table.metadata();
        let scalar = |id: i32, value: &Literal| -> Option<ScalarValue> {
            let data_type = engine_type(table.schema().field_by_id(id)?.field_type.as_primitive_type()?).ok()?;
            match value {
                Literal::Primitive(value) => partition_scalar(&data_type, value),
                _ => None,
            }
        };
        let mut defaults = HashMap::new();
        for id in table.schema().field_id_to_name_map().keys() {
            let default = table.schema().field_by_id(*id).and_then(|field| Some((field, field.initial_default.as_ref()?)));
            if let Some((field, default)) = default {
                let value = scalar(*id, default).ok_or_else(|| {
                    Error::unsupported(format!("the initial default of column `{}`, {default:?}, is not supported", field.name))
                })?;
                defaults.insert(*id, value);
            }
        }
        let identity = metadata.partition_specs_iter().map(|spec| {
            let fields = spec.fields().iter().enumerate().filter(|(_, field)| field.transform == Transform::Identity);
            let fields = fields.filter_map(|(position, field)| {
                let source = table.schema().field_by_id(field.source_id)?;
                let data_type = engine_type(source.field_type.as_primitive_type()?).ok()?;
                Some(IdentityField { position, source_id: field.source_id, data_type })
            });
            (spec.spec_id(), fields.collect())
        });
        Ok(Self {
            with_ids,
            output,
            mapping: name_mapping::of_table(metadata)?,
            defaults: Arc::new(defaults),
            identity: Arc::new(identity.collect()),
        })
    }

    /// Some of the columns.
    pub(super) fn project(&self, indexes: &[usize]) -> Result<Self> {
        let project = |schema: &SchemaRef| {
            let projected = schema.project(indexes);
            projected.map(Arc::new).map_err(|e| Error::internal("a projection of the table does not fit").with_source(e))
        };
        Ok(Self { with_ids: project(&self.with_ids)?, output: project(&self.output)?, ..self.clone() })
    }

    /// The columns, and `more` after them.
    pub(super) fn with_columns(&self, more: &ArrowSchema) -> Self {
        let append = |schema: &SchemaRef| {
            let fields = schema.fields().iter().chain(more.fields()).cloned();
            Arc::new(ArrowSchema::new(fields.collect::<Vec<_>>()))
        };
        Self { with_ids: append(&self.with_ids), output: append(&self.output), ..self.clone() }
    }

    /// What stands for columns that the task's file lacks.
    pub(super) fn absent(&self, task: &ScanTask) -> Absent {
        let mut values = HashMap::new();
        for field in self.identity.get(&task.spec_id).into_iter().flatten() {
            let value = match task.partition.fields().get(field.position) {
                Some(Some(Literal::Primitive(value))) => partition_scalar(&field.data_type, value),
                Some(None) => ScalarValue::try_new_null(&field.data_type).ok(),
                _ => None,
            };
            values.extend(value.map(|value| (field.source_id, value)));
        }
        Absent { defaults: Arc::clone(&self.defaults), partition: Arc::new(values) }
    }

    /// What stands for columns that a file lacks, as far as it is the same for all files.
    pub(super) fn absent_everywhere(&self) -> Absent {
        Absent { defaults: Arc::clone(&self.defaults), partition: Arc::default() }
    }

    /// Whether partitions of this spec hold values of columns.
    pub(super) fn has_identity(&self, spec_id: i32) -> bool {
        self.identity.get(&spec_id).is_some_and(|fields| !fields.is_empty())
    }
}
