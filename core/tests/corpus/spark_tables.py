"""Tables of Spark and Iceberg's Java library, each with what Spark reads from it. Run by make.sh, with Spark's Python."""

import os
import pathlib
import shutil
import sys
import uuid

import pyarrow
import pyarrow.parquet
from pyspark.sql import SparkSession

root = pathlib.Path(sys.argv[1])
work = root / "spark"
spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.jars", os.environ["ICEBERG_SPARK_JARS"])
    .config("spark.sql.extensions", "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions")
    .config("spark.sql.catalog.h", "org.apache.iceberg.spark.SparkCatalog")
    .config("spark.sql.catalog.h.type", "hadoop")
    .config("spark.sql.catalog.h.warehouse", f"file:{work}")
    .config("spark.sql.session.timeZone", "UTC")
    .config("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    .config("spark.sql.shuffle.partitions", "2")
    .config("spark.ui.enabled", "false")
    .config("spark.sql.iceberg.use-timestamp-without-timezone-in-new-tables", "false")
    .getOrCreate()
)
spark.sparkContext.setLogLevel("ERROR")
jvm = spark._jvm
only = sys.argv[2:]


def table_of(name):
    return jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable(spark._jsparkSession, f"h.db.{name}")


def state(name, *statements, select="*", folder=None, answer_before_last=False):
    """Runs the statements ({t} is the table; callables get its name), and keeps the table and what Spark reads from it, or did
    before the last of them."""
    if only and name not in only:
        return
    print(name, flush=True)
    try:
        for number, statement in enumerate(statements, 1):
            if answer_before_last and number == len(statements):
                ask(name, select)
            if callable(statement):
                statement(name)
            else:
                spark.sql(statement.replace("{t}", f"h.db.{name}"))
        if not answer_before_last:
            ask(name, select)
        keep(name, folder)
    except Exception as error:
        failed.append(name)
        print(f"{name} FAILED: {str(error)[:600]}", flush=True)


failed = []


def ask(name, select):
    spark.catalog.refreshTable(f"h.db.{name}")
    spark.sql(f"SELECT {select} FROM h.db.{name}").coalesce(1).write.mode("overwrite").parquet(str(root / "answer"))


def keep(name, folder):
    target = root / "states" / f"spark_{name}"
    target.mkdir(parents=True)
    [part] = (root / "answer").glob("*.parquet")
    shutil.copy(part, target / "expected.parquet")
    shutil.copytree(folder or work / "db" / name, target / "table", ignore=shutil.ignore_patterns("*.crc"))
    if name == "v3_avro":
        # Spark 3.5 gives all rows of an Avro file the id of the first.
        return
    table = table_of(name)
    columns = ["_file", "_pos", "_spec_id"]
    if any(spec.isPartitioned() for spec in table.specs().values()):
        columns.append("_partition")
    if table.operations().current().formatVersion() == 3:
        columns += ["_row_id", "_last_updated_sequence_number"]
    try:
        spark.sql(f"SELECT {', '.join(columns)} FROM h.db.{name}").coalesce(1).write.mode("overwrite").parquet(str(root / "answer"))
        [part] = (root / "answer").glob("*.parquet")
        shutil.copy(part, target / "metadata_columns.parquet")
    except Exception as error:
        print(f"{name}: Spark gives no metadata columns: {str(error)[:200]}", flush=True)


def properties(version, **more):
    pairs = {"format-version": version, "write.delete.mode": "merge-on-read", "write.update.mode": "merge-on-read",
             "write.merge.mode": "merge-on-read", **{key.replace("__", "-").replace("_", "."): value for key, value in more.items()}}
    return "TBLPROPERTIES (" + ", ".join(f"'{key}'='{value}'" for key, value in pairs.items()) + ")"


COLUMNS = """id BIGINT, i INT, x DOUBLE, f FLOAT, p DECIMAL(12,3), q DECIMAL(38,10), w DECIMAL(5,2), d DATE, ts TIMESTAMP_NTZ,
 tz TIMESTAMP, s STRING, b BOOLEAN, bin BINARY, st STRUCT<a: INT, n: STRUCT<k: STRING>>, l ARRAY<INT>, m MAP<STRING, DOUBLE>,
 ls ARRAY<STRUCT<u: INT, v: STRING>>"""

NAMES = "id, i, x, f, p, q, w, d, ts, tz, s, b, bin, st, l, m, ls"


def rows(start, count):
    """Rows of every type: NULLs, NaN, both zeros, times before 1970, long strings with one prefix, negative decimals."""
    return f"""SELECT id, CAST(n AS INT), CASE WHEN id % 17 = 0 THEN double('NaN') WHEN id % 17 = 1 THEN -0.0D WHEN id % 17 = 2
 THEN 0.0D ELSE n / 8D END, CAST(CASE WHEN id % 13 = 0 THEN float('NaN') ELSE n / 4 END AS FLOAT), CAST(n / 8 AS DECIMAL(12,3)),
 CAST(n * 1000000007 AS DECIMAL(38,10)), CAST(n % 900 AS DECIMAL(5,2)), date_add(DATE'1970-01-01', CAST(n * 3 AS INT)),
 CAST(timestamp_micros(n * 46800000000L + id) AS TIMESTAMP_NTZ), timestamp_micros(n * 46800000000L + id),
 CASE WHEN id % 5 = 0 THEN concat('shared long prefix of many characters ', n % 7) ELSE concat('s', n % 50) END, n % 2 = 0,
 encode(concat('b', n), 'UTF-8'), named_struct('a', CAST(n AS INT), 'n', named_struct('k', concat('k', n))),
 array(CAST(n AS INT), NULL, 3), map(concat('m', n % 3), n / 2D, 'z', NULL),
 array(named_struct('u', CAST(n AS INT), 'v', 'e')) FROM (SELECT id, (id * 7919) % 1000 - 500 AS n FROM range({start}, {start + count}))"""


def insert(**values):
    """Inserts a row of which the other columns are NULL: {column: SQL}."""

    def run(name):
        schema = spark.table(f"h.db.{name}").schema
        row = [f"CAST({values.get(field.name, 'NULL')} AS {field.dataType.simpleString()})" for field in schema]
        spark.sql(f"INSERT INTO h.db.{name} SELECT {', '.join(row)}")

    return run


def fill(start=0, count=40):
    return [f"INSERT INTO {{t}} {rows(start, count)}", insert(id=str(start + count)), insert(),
            f"INSERT INTO {{t}} {rows(start + count + 1, count)}"]


PARTITIONINGS = {
    "identity": "s, b", "days": "days(tz)", "hours": "hours(ts)", "months": "months(d)", "years": "years(ts), bucket(2, id)",
    "buckets": "bucket(3, id), bucket(4, s), bucket(2, d), bucket(2, p), bucket(3, tz)", "truncates": "truncate(4, s), truncate(100, i)",
    "decimals": "p, truncate(50, w)", "dates": "d", "floats": "f", "doubles": "x", "binaries": "bin",
}
for version in (1, 2, 3):
    state(f"v{version}_types", f"CREATE TABLE {{t}} ({COLUMNS}) USING iceberg {properties(version)}", *fill())
for label, by in PARTITIONINGS.items():
    version = 1 if label in ("months", "truncates") else 2
    state(f"part_{label}", f"CREATE TABLE {{t}} ({COLUMNS}) USING iceberg PARTITIONED BY ({by}) {properties(version)}", *fill())

# Data files in Avro, and in both formats; deletes in Avro too.
AVRO = "'write.format.default' = 'avro', 'write.delete.format.default' = 'avro'"
for version in (2, 3):
    state(f"v{version}_avro", f"CREATE TABLE {{t}} ({COLUMNS}, nk MAP<INT, STRING>) USING iceberg {properties(version, write_format_default='avro')}",
          *[f"INSERT INTO {{t}} SELECT *, map(i, 'x', 1000, NULL) FROM ({rows(start, 40)}) AS r({NAMES})"
            for start in (0, 40)], insert(id="80"), "DELETE FROM {t} WHERE id % 3 = 1")
state("v2_avro_deletes_part", f"CREATE TABLE {{t}} ({COLUMNS}) USING iceberg PARTITIONED BY (truncate(2, s), b) {properties(2)}",
      f"ALTER TABLE {{t}} SET TBLPROPERTIES ({AVRO})", *fill(), "DELETE FROM {t} WHERE id % 3 = 1", "UPDATE {t} SET i = -1 WHERE id % 7 = 2")
state("v2_avro_and_parquet", f"CREATE TABLE {{t}} ({COLUMNS}) USING iceberg {properties(2)}", *fill(),
      f"ALTER TABLE {{t}} SET TBLPROPERTIES ({AVRO})", *fill(200, 20), "DELETE FROM {t} WHERE id % 3 = 1")
state("v1_avro_evolved", f"CREATE TABLE {{t}} (a INT, s STRING, st STRUCT<k: INT, o: STRING>, p DECIMAL(5,2)) USING iceberg {properties(1, write_format_default='avro')}",
      "INSERT INTO {t} VALUES (1, 'one', named_struct('k', 1, 'o', 'x'), 1.25), (2, NULL, NULL, NULL)",
      "ALTER TABLE {t} ALTER COLUMN a TYPE BIGINT", "ALTER TABLE {t} ALTER COLUMN p TYPE DECIMAL(12,2)", "ALTER TABLE {t} RENAME COLUMN s TO t",
      "ALTER TABLE {t} ALTER COLUMN st.k TYPE BIGINT", "ALTER TABLE {t} DROP COLUMN st.o", "ALTER TABLE {t} ADD COLUMN s STRING FIRST",
      "INSERT INTO {t} VALUES ('new', 5000000000, 'two', named_struct('k', 5000000000), 12345678.25)")
# Avro defines a type once; the second column of the type has its name alone.
state("v2_avro_types_by_name", f"CREATE TABLE {{t}} (a DECIMAL(9,2), b DECIMAL(9,2), c DECIMAL(9,2)) USING iceberg {properties(2, write_format_default='avro')}",
      "INSERT INTO {t} SELECT CAST(id AS DECIMAL(9,2)), CAST(id * 2 AS DECIMAL(9,2)), CAST(id / 4 AS DECIMAL(9,2)) FROM range(20)", "DELETE FROM {t} WHERE b = 4")
state("refused_orc", f"CREATE TABLE {{t}} (a INT) USING iceberg {properties(2, write_format_default='orc')}", "INSERT INTO {t} VALUES (1), (2)")

# Deletes.
for version, granularity in ((2, "partition"), (2, "file"), (3, "file")):
    for label, by in (("flat", ""), ("part", "PARTITIONED BY (truncate(2, s), b)")):
        state(f"v{version}_deletes_{granularity}_{label}",
              f"CREATE TABLE {{t}} ({COLUMNS}) USING iceberg {by} {properties(version, write_delete_granularity=granularity)}",
              *fill(), "DELETE FROM {t} WHERE id % 3 = 1", "DELETE FROM {t} WHERE id IS NULL OR i > 300",
              "UPDATE {t} SET i = -1, s = 'updated' WHERE id % 7 = 2", *fill(200, 20), "DELETE FROM {t} WHERE b AND id > 205")
for version in (2, 3):
    state(f"v{version}_merge", f"CREATE TABLE {{t}} (id BIGINT, v STRING) USING iceberg {properties(version)}",
          "INSERT INTO {t} SELECT id, concat('v', id) FROM range(100)",
          """MERGE INTO {t} USING (SELECT id * 2 AS id, 'new' AS v FROM range(80)) s ON {t}.id = s.id
             WHEN MATCHED AND s.id % 3 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *""")
    state(f"v{version}_dense_deletes", f"CREATE TABLE {{t}} (id BIGINT, v STRING) USING iceberg {properties(version)}",
          "INSERT INTO {t} SELECT /*+ COALESCE(1) */ id, concat('v', id) FROM range(70000)", "DELETE FROM {t} WHERE id % 2 = 0",
          "DELETE FROM {t} WHERE id BETWEEN 1000 AND 60000")
state("v1_copy_on_write", f"CREATE TABLE {{t}} ({COLUMNS}) USING iceberg TBLPROPERTIES ('format-version'='1')", *fill(),
      "DELETE FROM {t} WHERE id % 3 = 1", "UPDATE {t} SET i = 5 WHERE id % 4 = 2")
state("v1_to_v2_deletes", f"CREATE TABLE {{t}} ({COLUMNS}) USING iceberg PARTITIONED BY (b) TBLPROPERTIES ('format-version'='1')", *fill(),
      f"ALTER TABLE {{t}} SET {properties(2)}", "DELETE FROM {t} WHERE id % 3 = 1", *fill(100, 10))
state("v2_to_v3_deletes", f"CREATE TABLE {{t}} ({COLUMNS}) USING iceberg {properties(2)}", *fill(), "DELETE FROM {t} WHERE id % 3 = 1",
      f"ALTER TABLE {{t}} SET {properties(3)}", "DELETE FROM {t} WHERE id % 5 = 2", *fill(100, 10), "UPDATE {t} SET i = 9 WHERE id = 4")
state("v2_all_deleted", "CREATE TABLE {t} (a INT) USING iceberg " + properties(2), "INSERT INTO {t} VALUES (1), (2)",
      "DELETE FROM {t} WHERE a < 3")


def equality(*deletes):
    """Commits equality delete files: each is (columns, rows, partition path), columns by name or by dotted path."""

    def commit(name):
        table = table_of(name)
        delta = table.newRowDelta()
        for columns, values, partition in deletes:
            fields = [table.schema().findField(column) for column in columns]
            names = [column.rsplit(".")[-1] for column in columns]
            types = {"long": pyarrow.int64(), "int": pyarrow.int32(), "string": pyarrow.string(), "double": pyarrow.float64(),
                     "date": pyarrow.date32(), "decimal(12, 3)": pyarrow.decimal128(12, 3), "boolean": pyarrow.bool_()}
            schema = pyarrow.schema([
                pyarrow.field(label, types[field.type().toString()], metadata={"PARQUET:field_id": str(field.fieldId())})
                for label, field in zip(names, fields)])
            # A field of a struct lies in its struct, which has no other.
            outer = [table.schema().findField(column.rsplit(".")[0]) if "." in column else None for column in columns]
            path = pathlib.Path(work / "db" / name / "data" / f"equality-{uuid.uuid4()}.parquet")
            path.parent.mkdir(parents=True, exist_ok=True)
            columns_of = [pyarrow.array([row[index] for row in values], type=schema[index].type) for index in range(len(names))]
            for index, struct in enumerate(outer):
                if struct is not None:
                    columns_of[index] = pyarrow.StructArray.from_arrays([columns_of[index]], fields=[schema[index]])
                    field = pyarrow.field(struct.name(), columns_of[index].type, metadata={"PARQUET:field_id": str(struct.fieldId())})
                    schema = schema.set(index, field)
            pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns_of, schema=schema), path)
            ids = spark.sparkContext._gateway.new_array(jvm.int, len(fields))
            for index, field in enumerate(fields):
                ids[index] = field.fieldId()
            builder = (jvm.org.apache.iceberg.FileMetadata.deleteFileBuilder(table.spec()).ofEqualityDeletes(ids)
                       .withPath(f"file:{path}").withFormat("PARQUET").withFileSizeInBytes(path.stat().st_size)
                       .withRecordCount(len(values)))
            if partition:
                builder = builder.withPartitionPath(partition)
            delta.addDeletes(builder.build())
        delta.commit()

    return commit


SMALL = "id BIGINT, i INT, s STRING, d DATE, p DECIMAL(12,3), x DOUBLE, st STRUCT<a: INT, k: STRING>"


def small(start, count):
    return f"""INSERT INTO {{t}} SELECT id, IF(id % 4 = 0, NULL, CAST(id % 10 AS INT)), IF(id % 6 = 0, NULL, concat('s', id % 5)),
 date_add(DATE'1969-12-28', CAST(id AS INT)), CAST(id / 8 AS DECIMAL(12,3)), IF(id % 9 = 0, double('NaN'), id / 2D),
 named_struct('a', CAST(id % 3 AS INT), 'k', concat('k', id)) FROM range({start}, {start + count})"""


state("eq_one_column", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg {properties(2)}", small(0, 30),
      equality((["id"], [[3], [4], [29], [1000]], None)), small(0, 5))
state("eq_nulls", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg {properties(2)}", small(0, 30), equality((["i"], [[None], [7]], None)))
state("eq_several_columns", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg {properties(2)}", small(0, 30),
      equality((["i", "s"], [[1, "s1"], [None, "s4"], [5, None], [None, None]], None)))
state("eq_several_sets", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg {properties(2)}", small(0, 30), equality((["s"], [["s2"]], None)),
      small(30, 10), equality((["i"], [[3]], None), (["d"], [[__import__("datetime").date(1970, 1, 3)]], None)), small(2, 3),
      "DELETE FROM {t} WHERE id = 9")
state("eq_types", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg {properties(2)}", small(0, 30),
      equality((["p"], [[__import__("decimal").Decimal("1.125")], [None]], None), (["x"], [[float("nan")], [2.5]], None)))
state("eq_partitions", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg PARTITIONED BY (s) {properties(2)}", small(0, 30),
      equality((["i"], [[1], [3], [None]], "s=s1"), (["i"], [[2]], "s=s2")), small(0, 12))
state("eq_across_specs", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg {properties(2)}", small(0, 30), equality((["id"], [[1]], None)),
      "ALTER TABLE {t} ADD PARTITION FIELD s", small(30, 20), equality((["i"], [[1], [2], [None]], "s=s1")),
      "ALTER TABLE {t} DROP PARTITION FIELD s", small(50, 10), equality((["i"], [[8]], None)), small(0, 9))
state("eq_and_positions", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg {properties(2)}", small(0, 40), "DELETE FROM {t} WHERE id % 5 = 0",
      equality((["id"], [[1], [5], [6]], None)), "UPDATE {t} SET s = 'u' WHERE id = 7", small(100, 4))
state("eq_v3", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg {properties(3)}", small(0, 40), "DELETE FROM {t} WHERE id % 5 = 0",
      equality((["id"], [[1], [5], [6]], None)), small(100, 4))
state("eq_promoted", "CREATE TABLE {t} (id INT, v STRING) USING iceberg " + properties(2),
      "INSERT INTO {t} VALUES (1, 'a'), (2, 'b'), (3, 'c')", equality((["id"], [[2]], None)), "ALTER TABLE {t} ALTER COLUMN id TYPE BIGINT",
      "INSERT INTO {t} VALUES (3000000000, 'd'), (2, 'e')", equality((["id"], [[3000000000], [1]], None)))
state("eq_renamed_column", "CREATE TABLE {t} (id INT, v STRING) USING iceberg " + properties(2),
      "INSERT INTO {t} VALUES (1, 'a'), (2, 'b'), (3, 'c')", equality((["v"], [["b"]], None)), "ALTER TABLE {t} RENAME COLUMN v TO w",
      "ALTER TABLE {t} ADD COLUMN v STRING", "INSERT INTO {t} VALUES (4, 'x', 'b')", equality((["v"], [["b"], [None]], None)))

state("eq_nested", "CREATE TABLE {t} (id INT, st STRUCT<a: INT, b: STRING>, k STRING) USING iceberg " + properties(2),
      "INSERT INTO {t} VALUES (1, named_struct('a', 1, 'b', 'x'), 'k'), (2, named_struct('a', 2, 'b', 'y'), 'k'), (3, named_struct('a', NULL, 'b', 'z'), 'k')",
      equality((["st.a"], [[2]], None)), "INSERT INTO {t} VALUES (4, named_struct('a', 2, 'b', 'y'), 'l'), (5, named_struct('a', 5, 'b', 'x'), 'k')",
      equality((["st.b", "k"], [["x", "k"]], None)))
# Spark does not read it any more: the column is gone by which rows were deleted.
state("eq_dropped_column", "CREATE TABLE {t} (id INT, v STRING) USING iceberg " + properties(2), "INSERT INTO {t} VALUES (1, 'a'), (2, 'b'), (3, 'c')",
      equality((["v"], [["b"]], None)), "INSERT INTO {t} VALUES (4, 'b')", "ALTER TABLE {t} DROP COLUMN v", select="id", answer_before_last=True)
state("eq_void_spec", "CREATE TABLE {t} (id INT, s STRING) USING iceberg PARTITIONED BY (s) TBLPROPERTIES ('format-version'='1')",
      "INSERT INTO {t} VALUES (1, 'a'), (2, 'b'), (3, 'a')", "ALTER TABLE {t} DROP PARTITION FIELD s", "INSERT INTO {t} VALUES (4, 'a'), (5, 'c')",
      f"ALTER TABLE {{t}} SET {properties(2)}", equality((["id"], [[1], [4]], None)), "INSERT INTO {t} VALUES (4, 'again')")

# Evolution of columns.
state("evolved", f"CREATE TABLE {{t}} ({COLUMNS}) USING iceberg {properties(2)}", *fill(0, 10), "ALTER TABLE {t} RENAME COLUMN i TO j",
      "ALTER TABLE {t} ALTER COLUMN j TYPE BIGINT", "ALTER TABLE {t} ALTER COLUMN f TYPE DOUBLE",
      "ALTER TABLE {t} ALTER COLUMN p TYPE DECIMAL(20,3)", "ALTER TABLE {t} DROP COLUMN s", "ALTER TABLE {t} ADD COLUMN s INT AFTER id",
      insert(id="100", s="7", j="5000000000", p="12345678901234567.125"), "ALTER TABLE {t} ALTER COLUMN tz FIRST",
      "ALTER TABLE {t} ADD COLUMN st.z STRING", "ALTER TABLE {t} DROP COLUMN st.a", "ALTER TABLE {t} RENAME COLUMN st.n TO nn",
      "ALTER TABLE {t} ADD COLUMN ls.element.w DOUBLE", "ALTER TABLE {t} DROP COLUMN ls.element.u", "ALTER TABLE {t} ADD COLUMN late STRING",
      insert(id="101", late="'l'", ls="array(named_struct('v', 'vv', 'w', 1.5D))"), "DELETE FROM {t} WHERE id = 3")
state("readded", "CREATE TABLE {t} (a INT, b STRING) USING iceberg " + properties(2), "INSERT INTO {t} VALUES (1, 'x')",
      "ALTER TABLE {t} DROP COLUMN b", "ALTER TABLE {t} ADD COLUMN b STRING", "INSERT INTO {t} VALUES (2, 'y')")
state("swapped", "CREATE TABLE {t} (a INT, b INT) USING iceberg " + properties(2), "INSERT INTO {t} VALUES (1, 2)",
      "ALTER TABLE {t} RENAME COLUMN a TO c", "ALTER TABLE {t} RENAME COLUMN b TO a", "ALTER TABLE {t} RENAME COLUMN c TO b",
      "INSERT INTO {t} VALUES (3, 4)")
state("odd_names", "CREATE TABLE {t} (pos BIGINT, file_path STRING, partition STRING, `a b` INT, `c.d` INT, `é` INT, `select` INT) USING iceberg "
      + properties(2), "INSERT INTO {t} SELECT id, concat('p', id), 'f', 1, 2, 3, 4 FROM range(10)", "DELETE FROM {t} WHERE pos % 3 = 0")
spark.conf.set("spark.sql.caseSensitive", "true")
state("two_cases", "CREATE TABLE {t} (a INT, A STRING) USING iceberg " + properties(2), "INSERT INTO {t} VALUES (1, 'x'), (2, 'y')",
      select="a, A AS upper_a")
spark.conf.set("spark.sql.caseSensitive", "false")


def add_columns(*columns):
    """Columns with initial defaults, which Spark's SQL does not make: (name, type, default)."""

    def commit(name):
        update = table_of(name).updateSchema()
        types, literal = jvm.org.apache.iceberg.types.Types, jvm.org.apache.iceberg.expressions.Expressions
        for column, data_type, value in columns:
            update.addColumn(column, eval(data_type, {"T": types}), None, literal.lit(value))
        update.commit()

    return commit


state("v3_defaults", "CREATE TABLE {t} (a INT, st STRUCT<x: INT>) USING iceberg " + properties(3),
      "INSERT INTO {t} VALUES (1, named_struct('x', 1)), (2, NULL)",
      add_columns(("n", "T.IntegerType.get()", 42), ("s", "T.StringType.get()", "dflt"), ("x", "T.DoubleType.get()", 2.5),
                  ("b", "T.BooleanType.get()", True), ("l", "T.LongType.get()", 5)),
      "INSERT INTO {t} VALUES (3, NULL, 1, 's', 1.5, false, 6)", "DELETE FROM {t} WHERE a = 2")

# Evolution of partitions.
state("specs", f"CREATE TABLE {{t}} ({COLUMNS}) USING iceberg PARTITIONED BY (months(d)) {properties(2)}", *fill(0, 20),
      "ALTER TABLE {t} REPLACE PARTITION FIELD months(d) WITH days(d)", *fill(100, 10), "ALTER TABLE {t} ADD PARTITION FIELD bucket(4, id)",
      *fill(200, 10), "ALTER TABLE {t} DROP PARTITION FIELD days(d)", *fill(300, 10), "DELETE FROM {t} WHERE id % 4 = 1")
state("v1_void", f"CREATE TABLE {{t}} ({COLUMNS}) USING iceberg PARTITIONED BY (b, truncate(2, s)) TBLPROPERTIES ('format-version'='1')",
      *fill(0, 10), "ALTER TABLE {t} DROP PARTITION FIELD b", *fill(100, 10), "ALTER TABLE {t} ADD PARTITION FIELD bucket(2, id)", *fill(200, 10))
state("dropped_source", "CREATE TABLE {t} (a INT, b INT, c INT) USING iceberg PARTITIONED BY (b) " + properties(2),
      "INSERT INTO {t} VALUES (1, 1, 1), (2, 2, 2)", "ALTER TABLE {t} DROP PARTITION FIELD b", "INSERT INTO {t} VALUES (3, 3, 3)",
      "ALTER TABLE {t} DROP COLUMN b", "INSERT INTO {t} VALUES (4, 4)", "DELETE FROM {t} WHERE a = 2")
state("promoted_partition", "CREATE TABLE {t} (a INT, f FLOAT) USING iceberg PARTITIONED BY (a, bucket(3, a)) " + properties(2),
      "INSERT INTO {t} VALUES (1, 1.5), (2, NULL), (NULL, 3)", "ALTER TABLE {t} ALTER COLUMN a TYPE BIGINT",
      "INSERT INTO {t} VALUES (1, 2.5), (5000000000, 7)", "DELETE FROM {t} WHERE a = 1")
state("renamed_source", "CREATE TABLE {t} (a INT, s STRING) USING iceberg PARTITIONED BY (s) " + properties(2),
      "INSERT INTO {t} VALUES (1, 'x/y'), (2, 'a b'), (3, NULL), (4, 'ä%=&'), (5, '')", "ALTER TABLE {t} RENAME COLUMN s TO z",
      "INSERT INTO {t} VALUES (6, 'x/y')")

# Files of Hive tables, which hold neither ids nor the columns of their partitions.


def hive(name):
    """Adds partitioned Parquet files to the table, in whose folder they lie."""
    source = work / "db" / name / "hive"
    frame = spark.sql("SELECT id, concat('v', id) AS v, named_struct('p', id, 'q', 'n') AS st, id % 3 AS k, "
                      "date_add(DATE'2020-01-01', CAST(id % 2 AS INT)) AS day FROM range(12)")
    frame.write.partitionBy("k", "day").parquet(str(source))
    spark.sql(f"CALL h.system.add_files(table => 'db.{name}', source_table => '`parquet`.`{source}`')")


state("hive_files", "CREATE TABLE {t} (id BIGINT, v STRING, st STRUCT<p: BIGINT, q: STRING>, k BIGINT, day DATE) USING iceberg "
      "PARTITIONED BY (k, day) " + properties(2), hive, "INSERT INTO {t} VALUES (100, 'i', NULL, 7, DATE'2021-01-01')",
      "ALTER TABLE {t} RENAME COLUMN v TO w", "ALTER TABLE {t} ADD COLUMN late INT", "DELETE FROM {t} WHERE id = 4")


def no_mapping(name):
    table_of(name).updateProperties().remove("schema.name-mapping.default").commit()


def int96(name):
    """Adds a file with timestamps of 96 bits, some of them beyond what nanoseconds can be."""
    source = work / "db" / name / "plain"
    spark.conf.set("spark.sql.parquet.outputTimestampType", "INT96")
    frame = spark.sql("SELECT id, timestamp_micros(id * 86400000000 * 300000 + id) AS ts FROM range(12)")
    frame.coalesce(1).write.parquet(str(source))
    spark.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    spark.sql(f"CALL h.system.add_files(table => 'db.{name}', source_table => '`parquet`.`{source}`')")


state("int96", "CREATE TABLE {t} (id BIGINT, ts TIMESTAMP) USING iceberg " + properties(2), int96,
      "INSERT INTO {t} VALUES (100, TIMESTAMP '2026-01-01 00:00:00')", "DELETE FROM {t} WHERE id = 3")
state("no_mapping", "CREATE TABLE {t} (id BIGINT, v STRING, n INT) USING iceberg " + properties(2),
      lambda name: (spark.sql("SELECT id, concat('v', id) AS v, CAST(id AS INT) AS n FROM range(5)").coalesce(1)
                    .write.parquet(str(work / "db" / name / "plain")),
                    spark.sql(f"CALL h.system.add_files(table => 'db.{name}', source_table => '`parquet`.`{work / 'db' / name / 'plain'}`')")),
      no_mapping, "ALTER TABLE {t} RENAME COLUMN v TO renamed", "INSERT INTO {t} VALUES (50, 'x', 1)")

# Metadata of other shapes.
state("gzip", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg " + properties(2, write_metadata_compression__codec="gzip"), small(0, 10),
      "DELETE FROM {t} WHERE id = 1")
state("data_path", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg " + properties(2, write_data_path=f"file:{work}/db/data_path/elsewhere"),
      small(0, 10))
state("object_storage", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg PARTITIONED BY (s) "
      + properties(2, write_object__storage_enabled="true"), small(0, 10), "DELETE FROM {t} WHERE id = 1")
for mode in ("none", "counts", "truncate(2)"):
    state("metrics_" + "".join(c for c in mode if c.isalnum()), f"CREATE TABLE {{t}} ({COLUMNS}) USING iceberg PARTITIONED BY (months(d)) "
          + properties(2, write_metadata_metrics_default=mode), *fill(), "DELETE FROM {t} WHERE id = 1")
state("empty", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg PARTITIONED BY (s) {properties(2)}")
state("truncated", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg {properties(2)}", small(0, 10), "TRUNCATE TABLE {t}")
state("rolled_back", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg {properties(2)}", small(0, 10), small(10, 10),
      lambda name: spark.sql(f"CALL h.system.rollback_to_snapshot('db.{name}', {spark.sql(f'SELECT snapshot_id FROM h.db.{name}.snapshots ORDER BY committed_at').first()[0]})"))
state("maintained", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg PARTITIONED BY (s) {properties(2)}", small(0, 20), small(100, 20),
      "DELETE FROM {t} WHERE id % 3 = 0", "CALL h.system.rewrite_data_files('{t}')".replace("{t}", "db.maintained"),
      "CALL h.system.rewrite_manifests('db.maintained')", "DELETE FROM {t} WHERE id % 5 = 0",
      "CALL h.system.rewrite_position_delete_files(table => 'db.maintained', options => map('rewrite-all', 'true'))",
      "CALL h.system.expire_snapshots(table => 'db.maintained', older_than => TIMESTAMP '2100-01-01 00:00:00')", small(300, 5))
state("overwritten", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg PARTITIONED BY (s) {properties(2)}", small(0, 20),
      "INSERT OVERWRITE {t} SELECT * FROM {t} WHERE id < 8")
for codec in ("gzip", "snappy", "lz4", "uncompressed"):
    state(f"codec_{codec}", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg " + properties(2, write_parquet_compression__codec=codec), small(0, 10))
state("many_row_groups", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg " + properties(2, write_parquet_row__group__size__bytes="20000",
      write_parquet_page__size__bytes="2000", write_parquet_row__group__check__min__record__count="100"),
      small(0, 6000).replace("SELECT", "SELECT /*+ COALESCE(1) */", 1), "DELETE FROM {t} WHERE id BETWEEN 500 AND 2500 OR id % 100 = 7")
state("refs", f"CREATE TABLE {{t}} ({SMALL}) USING iceberg {properties(2)}", small(0, 5), "ALTER TABLE {t} CREATE TAG t1",
      "ALTER TABLE {t} CREATE BRANCH b1", small(5, 5), "INSERT INTO h.db.refs.branch_b1 SELECT * FROM h.db.refs")
sys.exit(f"failed: {failed}" if failed else 0)
