use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::csv::WriterBuilder;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::json::writer::{JsonArray, LineDelimited};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use clap::ValueEnum;
use comfy_table::{CellAlignment, Table};
use futures::TryStreamExt;
use tarndb::{Error, QueryResult, is_uuid_field};
use uuid::Uuid;

use crate::Failure;

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Csv,
    Json,
    Ndjson,
    Markdown,
    Vertical,
}

/// Rows that a table on the terminal holds in memory, to know how wide its columns are.
const MAX_TABLE_ROWS: usize = 10_000;

fn broken(e: arrow::error::ArrowError) -> Failure {
    match e {
        arrow::error::ArrowError::IoError(_, io) => io.into(),
        other => Failure::Error(Error::internal("rows cannot be printed").with_source(other)),
    }
}

fn options() -> FormatOptions<'static> {
    FormatOptions::new().with_null("NULL")
}

impl Format {
    /// Prints all rows. A result without columns prints nothing.
    pub(crate) async fn print(self, mut rows: QueryResult, out: &mut impl Write) -> Result<(), Failure> {
        let schema = rows.schema().clone();
        if schema.fields().is_empty() {
            rows.collect().await?;
            return Ok(());
        }
        let is_plan = schema.fields().len() == 2 && schema.field(0).name() == "plan_type" && schema.field(1).name() == "plan";
        match self {
            // Plans are text of many lines, which a frame around them would make unreadable.
            Format::Table if is_plan => print_plan(&mut rows, out).await,
            Format::Table | Format::Markdown => self.print_table(&schema, &mut rows, out).await,
            Format::Vertical => {
                let mut number = 0;
                while let Some(batch) = next(&mut rows).await? {
                    number = vertical(&batch, number, out)?;
                }
                Ok(())
            }
            Format::Csv => {
                csv(&flat(&RecordBatch::new_empty(schema))?, true, out)?;
                while let Some(batch) = next(&mut rows).await? {
                    csv(&flat(&batch)?, false, out)?;
                }
                Ok(())
            }
            Format::Ndjson => {
                let mut writer = json().build::<_, LineDelimited>(out);
                while let Some(batch) = next(&mut rows).await? {
                    writer.write(&batch).map_err(broken)?;
                }
                writer.finish().map_err(broken)
            }
            Format::Json => {
                let mut writer = json().build::<_, JsonArray>(&mut *out);
                while let Some(batch) = next(&mut rows).await? {
                    writer.write(&batch).map_err(broken)?;
                }
                writer.finish().map_err(broken)?;
                Ok(writeln!(out)?)
            }
        }
    }

    /// In Markdown, what would end a cell or its row is written so that it does not.
    fn cell(self, text: String) -> String {
        if self == Format::Markdown { text.replace('|', "\\|").replace('\n', "<br>") } else { text }
    }

    async fn print_table(self, schema: &SchemaRef, rows: &mut QueryResult, out: &mut impl Write) -> Result<(), Failure> {
        let mut table = Table::new();
        table.load_preset(if self == Format::Markdown {
            comfy_table::presets::ASCII_MARKDOWN
        } else {
            comfy_table::presets::ASCII_FULL_CONDENSED
        });
        table.set_header(schema.fields().iter().map(|field| field.name().clone()));
        for (column, field) in table.column_iter_mut().zip(schema.fields()) {
            if field.data_type().is_numeric() {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut count = 0;
        while let Some(batch) = next(rows).await? {
            let columns = formatters(&batch)?;
            for row in 0..batch.num_rows() {
                count += 1;
                if count <= MAX_TABLE_ROWS {
                    table.add_row(columns.iter().map(|column| self.cell(column.value(row).to_string())));
                }
            }
        }
        writeln!(out, "{table}")?;
        if self == Format::Table {
            let shown = if count > MAX_TABLE_ROWS { format!(" ({MAX_TABLE_ROWS} shown)") } else { String::new() };
            writeln!(out, "{count} row{}{shown}", if count == 1 { "" } else { "s" })?;
        }
        Ok(())
    }
}

/// The writer of CSV loses why it could not write, so it writes to memory.
fn csv(batch: &RecordBatch, header: bool, out: &mut impl Write) -> Result<(), Failure> {
    let mut text = Vec::new();
    WriterBuilder::new().with_header(header).build(&mut text).write(batch).map_err(broken)?;
    Ok(out.write_all(&text)?)
}

/// The next rows, with UUIDs as the text that people know them by.
async fn next(rows: &mut QueryResult) -> Result<Option<RecordBatch>, Failure> {
    let Some(batch) = rows.try_next().await? else { return Ok(None) };
    let schema = batch.schema();
    if !schema.fields().iter().any(|field| is_uuid_field(field)) {
        return Ok(Some(batch));
    }
    let fields = schema.fields().iter().map(|field| {
        if is_uuid_field(field) { Arc::new(Field::new(field.name(), DataType::Utf8, true)) } else { Arc::clone(field) }
    });
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| match column.as_fixed_size_binary_opt() {
        Some(uuids) if is_uuid_field(field) => {
            let text =
                uuids.iter().map(|bytes| bytes.and_then(|bytes| Uuid::from_slice(bytes).ok()).map(|uuid| uuid.to_string()));
            Arc::new(text.collect::<StringArray>())
        }
        _ => Arc::clone(column),
    });
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Fields>())), columns.collect());
    Ok(Some(batch.map_err(broken)?))
}

/// A column that is NULL is there all the same.
fn json() -> arrow::json::WriterBuilder {
    arrow::json::WriterBuilder::new().with_explicit_nulls(true)
}

/// CSV has no nested values: they become text.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, Failure> {
    let options = options();
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        if !field.data_type().is_nested() {
            columns.push((field.name().clone(), Arc::clone(array), field.is_nullable()));
            continue;
        }
        let formatter = ArrayFormatter::try_new(array, &options).map_err(broken)?;
        let text = (0..array.len()).map(|row| array.is_valid(row).then(|| formatter.value(row).to_string()));
        columns.push((field.name().clone(), Arc::new(text.collect::<StringArray>()), field.is_nullable()));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let fields = columns.iter().map(|(name, array, nullable)| Field::new(name, array.data_type().clone(), *nullable));
    let schema = Arc::new(Schema::new(fields.collect::<Fields>()));
    let arrays = columns.into_iter().map(|(_, array, _)| array).collect();
    RecordBatch::try_new_with_options(schema, arrays, &options).map_err(broken)
}

async fn print_plan(rows: &mut QueryResult, out: &mut impl Write) -> Result<(), Failure> {
    while let Some(batch) = next(rows).await? {
        let columns = formatters(&batch)?;
        for row in 0..batch.num_rows() {
            let mut cells = columns.iter().map(|column| column.value(row).to_string());
            let (kind, plan) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
            writeln!(out, "-- {kind} --\n{}", plan.trim_end())?;
        }
    }
    Ok(())
}

fn formatters(batch: &RecordBatch) -> Result<Vec<ArrayFormatter<'_>>, Failure> {
    let options = options();
    batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).map_err(broken)).collect()
}

fn vertical(batch: &RecordBatch, mut number: usize, out: &mut impl Write) -> Result<usize, Failure> {
    let schema = batch.schema();
    let width = schema.fields().iter().map(|field| field.name().chars().count()).max().unwrap_or(0);
    let columns = formatters(batch)?;
    for row in 0..batch.num_rows() {
        number += 1;
        writeln!(out, "-- row {number} --")?;
        for (field, column) in schema.fields().iter().zip(&columns) {
            writeln!(out, "{:>width$}: {}", field.name(), column.value(row))?;
        }
    }
    Ok(number)
}
