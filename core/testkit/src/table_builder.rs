use rand::Rng;
use rand::rngs::StdRng;
use tarndb_core::{Lakehouse, Table};

/// The columns of built tables: every type whose values can be compared as text.
pub const COLUMNS: &str = "id BIGINT NOT NULL, i INT, x DOUBLE, f FLOAT, p DECIMAL(12,3), d DATE, ts TIMESTAMP, tz TIMESTAMPTZ, s STRING, b BOOLEAN, bin BINARY";

/// Makes a table of [`COLUMNS`] with random rows: NULLs, NaN, negative zero, dates before 1970, long strings that
/// share a prefix. The `id` counts from 1.
#[derive(Debug)]
pub struct TableBuilder {
    name: String,
    partitioned_by: Option<String>,
    properties: Vec<(String, String)>,
    commits: usize,
    rows_per_commit: i64,
}

impl TableBuilder {
    /// A table of three commits of 40 rows, unpartitioned.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_string(), partitioned_by: None, properties: Vec::new(), commits: 3, rows_per_commit: 40 }
    }

    /// Partitions by a list of transforms, as in SQL.
    #[must_use]
    pub fn partitioned_by(mut self, transforms: &str) -> Self {
        self.partitioned_by = (!transforms.is_empty()).then(|| transforms.to_string());
        self
    }

    /// Sets a table property.
    #[must_use]
    pub fn property(mut self, key: &str, value: &str) -> Self {
        self.properties.push((key.to_string(), value.to_string()));
        self
    }

    /// Sets how many commits there are, and of how many rows.
    #[must_use]
    pub fn commits(mut self, commits: usize, rows_per_commit: i64) -> Self {
        (self.commits, self.rows_per_commit) = (commits, rows_per_commit);
        self
    }

    /// Creates and fills the table.
    ///
    /// # Panics
    /// When a statement fails.
    pub async fn build(self, lake: &Lakehouse, random: &mut StdRng) -> Table {
        let partitioned_by = self.partitioned_by.map_or_else(String::new, |by| format!(" PARTITIONED BY ({by})"));
        let properties: Vec<String> = self.properties.iter().map(|(key, value)| format!("'{key}' = '{value}'")).collect();
        let properties =
            if properties.is_empty() { String::new() } else { format!(" TBLPROPERTIES ({})", properties.join(", ")) };
        let mut statements = vec![format!("CREATE TABLE {} ({COLUMNS}){partitioned_by}{properties}", self.name)];
        let mut ids = 1_i64..;
        for _ in 0..self.commits {
            let rows = ids.by_ref().take(usize::try_from(self.rows_per_commit).unwrap());
            let rows: Vec<String> = rows.map(|id| format!("({})", row(random, id))).collect();
            statements.push(format!("INSERT INTO {} VALUES {}", self.name, rows.join(", ")));
        }
        for statement in statements {
            let done = lake.sql(&statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
            done.collect().await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
        }
        lake.table(&self.name).await.unwrap()
    }
}

/// The values of a row, as SQL.
fn row(random: &mut StdRng, id: i64) -> String {
    let mut or_null = |text: String| if random.random_ratio(1, 8) { "NULL".to_string() } else { text };
    let n = (id * 7919) % 1000 - 500;
    let x = match id % 17 {
        0 => "CAST('NaN' AS DOUBLE)".to_string(),
        1 => "-0.0".to_string(),
        2 => "0.0".to_string(),
        _ => format!("{}", n as f64 / 8.0),
    };
    let text = if id % 5 == 0 { format!("'shared long prefix of many characters {}'", n % 7) } else { format!("'s{}'", n % 50) };
    let date = format!("DATE '1970-01-01' + INTERVAL '{}' DAY", n * 3);
    let time = format!("TIMESTAMP '1970-01-01 00:00:00' + INTERVAL '{}' HOUR", n * 13);
    [
        id.to_string(),
        or_null(n.to_string()),
        or_null(x.clone()),
        or_null(format!("CAST({x} AS FLOAT)")),
        or_null(format!("{n}.125")),
        or_null(date),
        or_null(time.clone()),
        or_null(time),
        or_null(text),
        or_null((n % 2 == 0).to_string()),
        or_null(format!("X'{:04x}'", n.unsigned_abs())),
    ]
    .join(", ")
}
