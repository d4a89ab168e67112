//! Files of foreign tables with some bytes changed: whatever a file holds, reading it ends in rows or in an error that is
//! about the file, and never in a panic.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use parquet::file::metadata::ParquetMetaDataReader;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tarndb_core::{ErrorKind, Lakehouse, Result, fuzzing};

use crate::corpus::Corpus;
use crate::rows;

/// Tables that have, between them, every kind of file.
const STATES: [&str; 6] = [
    "spark_v3_deletes_file_part",
    "spark_v2_deletes_partition_flat",
    "spark_eq_several_sets",
    "spark_hive_files",
    "spark_gzip",
    "pyiceberg_v1_specs",
];

/// Changed files of each table; `TARNDB_MUTATIONS` asks for more.
const MUTATIONS: usize = 60;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn mutate(random: &mut StdRng, bytes: &[u8]) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    for _ in 0..random.random_range(1..4) {
        if changed.is_empty() {
            break;
        }
        // Headers and footers are where a byte means most.
        let length = changed.len();
        let at = match random.random_range(0..4) {
            0 => random.random_range(0..length.min(64)),
            1 => length - 1 - random.random_range(0..length.min(512)),
            _ => random.random_range(0..length),
        };
        match random.random_range(0..6) {
            0 => changed[at] ^= 1 << random.random_range(0..8),
            1 => changed[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)],
            2 => changed.truncate(at),
            3 => changed.insert(at, random.random()),
            4 => {
                let end = (at + random.random_range(1..64)).min(length);
                let piece = changed[at..end].to_vec();
                changed.splice(at..at, piece);
            }
            _ => {
                // A number of a JSON file becomes another.
                let digits = changed.iter().enumerate().filter(|(_, byte)| byte.is_ascii_digit()).map(|(index, _)| index);
                let digits: Vec<usize> = digits.collect();
                if let Some(index) = digits.get(random.random_range(0..digits.len().max(1))) {
                    let new = [&b"-1"[..], b"9999999999", b"null", b"\"x\"", b"0"][random.random_range(0..5)];
                    changed.splice(*index..=*index, new.iter().copied());
                }
            }
        }
    }
    changed
}

async fn read(lake: &Lakehouse, folder: &Path) -> Result<usize> {
    let found = rows(lake, &format!("SELECT * FROM iceberg_scan('{}')", folder.display())).await?;
    Ok(found.iter().map(|batch| batch.num_rows()).sum())
}

/// What decodes the bytes of one kind of file.
type Target = fn(&[u8]);

/// The targets of `fuzz/`, for a short while, and the same each time: the corpus's files, whole and changed.
#[test]
fn fuzz_targets_take_anything() {
    let corpus = Corpus::unpack();
    let mut seeds: HashMap<&str, Vec<Vec<u8>>> = HashMap::new();
    for path in corpus.states().iter().flat_map(|state| files(state)) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let kind = match name {
            _ if name.contains(".metadata.json") => "metadata",
            _ if name.starts_with("snap-") => "list",
            _ if name.ends_with(".avro") => "manifest",
            _ if name.ends_with(".puffin") => "puffin",
            _ if name.ends_with(".parquet") => "parquet",
            _ => continue,
        };
        seeds.entry(kind).or_default().push(std::fs::read(&path).unwrap());
    }
    // A vector lies behind the first four bytes of its file.
    let vectors = seeds["puffin"].iter().map(|file| file[4.min(file.len())..].to_vec()).collect();
    let mapping = br#"[{"field-id": 1, "names": ["id"]}, {"field-id": 2, "names": ["nested"], "fields": [{"field-id": 3, "names": ["a"]}]}]"#;
    let rows_of_value = br#"PFA1{"blobs":[{"type":"tarndb-rows-of-value-v1","fields":[3],"snapshot-id":-1,"sequence-number":-1,"offset":4,"length":40,"properties":{"key":"colour","value":"red"}}],"properties":{"columns":"[3]","left-out":"[{\"column\":3,\"key\":\"id\"}]"}}"#;
    let length = u32::try_from(rows_of_value.len() - 4).unwrap().to_le_bytes();
    let rows_of_value = [rows_of_value, length.as_slice(), &[0; 4], b"PFA1"].concat();
    let targets: [(Target, Vec<Vec<u8>>); 7] = [
        (fuzzing::metadata_json, seeds.remove("metadata").unwrap()),
        (fuzzing::manifest_list, seeds.remove("list").unwrap()),
        (fuzzing::manifest, seeds.remove("manifest").unwrap()),
        (fuzzing::deletion_vector, vectors),
        (fuzzing::parquet_footer, seeds.remove("parquet").unwrap()),
        (fuzzing::rows_of_value, vec![rows_of_value]),
        (fuzzing::name_mapping, vec![mapping.to_vec()]),
    ];
    let mut random = StdRng::seed_from_u64(0);
    for (target, seeds) in targets {
        seeds.iter().for_each(|seed| target(seed));
        for _ in 0..2000 {
            let seed = random.random_range(0..seeds.len());
            target(&mutate(&mut random, &seeds[seed]));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_files_are_errors_or_rows() {
    let corpus = Corpus::unpack();
    let mutations = std::env::var("TARNDB_MUTATIONS").map_or(MUTATIONS, |number| number.parse().unwrap());
    let mut wrong = Vec::new();
    for (seed, state) in STATES.iter().enumerate() {
        let mut random = StdRng::seed_from_u64(seed as u64);
        let folder = corpus.states().into_iter().find(|path| path.ends_with(state)).unwrap().join("table");
        let lake = tarndb_core::connect("memory://").await.unwrap();
        assert!(read(&lake, &folder).await.unwrap() > 0, "{state}");
        let all = files(&folder);
        // Few kinds of file make up most of a table; each kind gets its share.
        let kinds = [".metadata.json", "snap-", "-m", ".puffin", ".parquet"];
        for number in 0..mutations {
            let kind = kinds[number % kinds.len()];
            let of_kind: Vec<&PathBuf> = all.iter().filter(|path| path.to_str().unwrap().contains(kind)).collect();
            if of_kind.is_empty() {
                continue;
            }
            let path = of_kind[random.random_range(0..of_kind.len())];
            let original = std::fs::read(path).unwrap();
            std::fs::write(path, mutate(&mut random, &original)).unwrap();
            // A lake of its own, for files are cached by their names.
            let lake = tarndb_core::connect("memory://").await.unwrap();
            if let Err(error) = read(&lake, &folder).await {
                let is_named = error.report().contains(path.file_name().unwrap().to_str().unwrap());
                if !matches!(error.kind(), ErrorKind::DataInvalid | ErrorKind::Unsupported) || !is_named {
                    wrong.push(format!("{state}, mutation {number} of {}: {error:?}", path.display()));
                }
            }
            std::fs::write(path, original).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Spark writes a checksum with each page: one changed bit of a page is an error, and never another value.
#[tokio::test(flavor = "multi_thread")]
async fn checksums_of_pages_are_compared() {
    let corpus = Corpus::unpack();
    let mut changed = 0;
    for state in ["spark_v2_types", "spark_codec_uncompressed", "spark_codec_gzip"] {
        let folder = corpus.states().into_iter().find(|path| path.ends_with(state)).unwrap().join("table");
        for path in files(&folder).into_iter().filter(|path| path.extension().is_some_and(|of| of == "parquet")) {
            let original = std::fs::read(&path).unwrap();
            let footer = ParquetMetaDataReader::new().parse_and_finish(&Bytes::from(original.clone())).unwrap();
            for column in footer.row_groups().iter().flat_map(|group| group.columns()) {
                // A column ends with the content of its last page.
                let (start, length) = column.byte_range();
                let mut bytes = original.clone();
                bytes[usize::try_from(start + length).unwrap() - 1] ^= 0x10;
                std::fs::write(&path, bytes).unwrap();
                let lake = tarndb_core::connect("memory://").await.unwrap();
                let error = read(&lake, &folder).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::DataInvalid, "{error:?}");
                assert!(format!("{error}").contains(path.file_name().unwrap().to_str().unwrap()), "{error}");
                changed += 1;
            }
            std::fs::write(&path, original).unwrap();
        }
    }
    assert!(changed > 20, "{changed} columns");
}
