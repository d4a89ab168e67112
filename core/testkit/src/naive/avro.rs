use apache_avro::Reader;
use apache_avro::types::Value;
use tarndb_catalog::{Storage, inline_manifests};

/// A live file of a snapshot.
#[derive(Debug, Clone)]
pub(super) struct File {
    /// 0 data, 1 position deletes, 2 equality deletes.
    pub(super) content: i64,
    pub(super) path: String,
    pub(super) is_puffin: bool,
    pub(super) spec_id: i32,
    pub(super) partition: Vec<Value>,
    pub(super) sequence_number: i64,
    pub(super) record_count: u64,
    pub(super) equality_ids: Vec<i32>,
    /// The one data file that a delete file is about, if the manifest says so: by itself, or by the bounds of the paths in it.
    pub(super) referenced_data_file: Option<String>,
    pub(super) content_offset: Option<i64>,
    pub(super) content_size: Option<i64>,
    /// The id of its first row, in tables of format version 3.
    pub(super) first_row_id: Option<i64>,
}

/// The records of an Avro file. Without logical types, which the library reads wrongly where they are UUIDs.
pub(super) fn records(bytes: &[u8]) -> Vec<Value> {
    let mut bytes = bytes.to_vec();
    let (logical, nothing) = (b"logicalType", b"logicalTypo");
    for start in 0..bytes.len().saturating_sub(logical.len()) {
        if bytes[start..].starts_with(logical) {
            bytes[start..start + nothing.len()].copy_from_slice(nothing);
        }
    }
    Reader::new(bytes.as_slice()).unwrap().map(|record| record.unwrap()).collect()
}

/// A value of an Avro file's header.
pub(super) fn header(bytes: &[u8], key: &str) -> Vec<u8> {
    let start = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap() + key.len();
    let (mut length, mut shift, mut at) = (0_u64, 0, start);
    loop {
        length |= u64::from(bytes[at] & 0x7f) << shift;
        shift += 7;
        at += 1;
        if bytes[at - 1] & 0x80 == 0 {
            break;
        }
    }
    let length = usize::try_from(length >> 1).unwrap();
    bytes[at..at + length].to_vec()
}

/// The value of a field, without its union; `None` when it is NULL or not there.
fn get<'a>(record: &'a Value, name: &str) -> Option<&'a Value> {
    let Value::Record(fields) = record else { panic!("{record:?} is not a record") };
    let (_, value) = fields.iter().find(|(field, _)| field == name)?;
    match plain(value) {
        Value::Null => None,
        value => Some(value),
    }
}

pub(super) fn plain(value: &Value) -> &Value {
    match value {
        Value::Union(_, value) => value,
        value => value,
    }
}

fn number(record: &Value, name: &str) -> Option<i64> {
    match get(record, name)? {
        Value::Int(n) => Some(i64::from(*n)),
        Value::Long(n) => Some(*n),
        other => panic!("{name} is {other:?}"),
    }
}

fn text(record: &Value, name: &str) -> Option<String> {
    match get(record, name)? {
        Value::String(text) => Some(text.clone()),
        other => panic!("{name} is {other:?}"),
    }
}

/// Numbers of before and after a promotion are compared.
fn widened(value: &Value) -> Value {
    match plain(value) {
        Value::Int(n) => Value::Long(i64::from(*n)),
        Value::Float(f) => Value::Double(f64::from(*f)),
        other => other.clone(),
    }
}

/// The live files of a snapshot, with their sequence numbers.
pub(super) async fn live_files(storage: &Storage, manifest_list: &str) -> Vec<File> {
    let mut manifests: Vec<(String, i32, i64, Option<i64>)> = Vec::new();
    match inline_manifests(manifest_list) {
        Some(paths) => manifests.extend(paths.into_iter().map(|path| (path, 0, 0, None))),
        None => {
            for line in records(&storage.read(manifest_list).await.unwrap()) {
                let spec_id = i32::try_from(number(&line, "partition_spec_id").unwrap_or(0)).unwrap();
                let sequence_number = number(&line, "sequence_number").unwrap_or(0);
                let first_row_id = number(&line, "first_row_id");
                manifests.push((text(&line, "manifest_path").unwrap(), spec_id, sequence_number, first_row_id));
            }
        }
    }
    let mut files = Vec::new();
    for (path, spec_id, inherited, mut next_row_id) in manifests {
        for entry in records(&storage.read(&path).await.unwrap()) {
            let status = number(&entry, "status").unwrap();
            if status == 2 {
                continue;
            }
            let sequence_number = number(&entry, "sequence_number").unwrap_or(if status == 1 { inherited } else { 0 });
            let file = get(&entry, "data_file").unwrap();
            let Some(Value::Record(partition)) = get(file, "partition") else { panic!("{file:?} has no partition") };
            let equality_ids = match get(file, "equality_ids") {
                Some(Value::Array(ids)) => {
                    ids.iter().map(|id| if let Value::Int(id) = plain(id) { *id } else { panic!() }).collect()
                }
                _ => Vec::new(),
            };
            let record_count = number(file, "record_count").unwrap();
            let first_row_id = number(file, "first_row_id").or_else(|| {
                let first = next_row_id?;
                next_row_id = Some(first + record_count);
                Some(first)
            });
            files.push(File {
                content: number(file, "content").unwrap_or(0),
                path: text(file, "file_path").unwrap(),
                is_puffin: text(file, "file_format").unwrap().eq_ignore_ascii_case("puffin"),
                spec_id,
                partition: partition.iter().map(|(_, value)| widened(value)).collect(),
                sequence_number,
                record_count: u64::try_from(record_count).unwrap(),
                first_row_id,
                equality_ids,
                referenced_data_file: text(file, "referenced_data_file").or_else(|| only_path(file)),
                content_offset: number(file, "content_offset"),
                content_size: number(file, "content_size_in_bytes"),
            });
        }
    }
    files
}

/// What the bounds of the path column of a position delete file say, if they are the same; DuckDB gives them the id of `_file`.
fn only_path(file: &Value) -> Option<String> {
    let bound = |name: &str, id: i64| match get(file, name)? {
        Value::Array(pairs) => {
            let pair = pairs.iter().find(|pair| number(pair, "key") == Some(id))?;
            if let Some(Value::Bytes(bytes)) = get(pair, "value") { Some(bytes.clone()) } else { None }
        }
        other => panic!("{name} is {other:?}"),
    };
    [2_147_483_546, 2_147_483_646].into_iter().find_map(|id| {
        let (lower, upper) = (bound("lower_bounds", id)?, bound("upper_bounds", id)?);
        (lower == upper).then(|| String::from_utf8(lower).unwrap())
    })
}
