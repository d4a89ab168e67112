"""Tables of DuckDB, each with what DuckDB reads from it. Run by make.sh, with two releases: 1.5.3 wrote deletion vectors without
their frame, and a second one beside the first.

Every statement runs on a table of DuckDB's own, too. What DuckDB reads from the Iceberg table has to be the same; where it cannot
read what it wrote, its own table is the answer."""

import pathlib
import shutil
import sys

import duckdb
import duckdb_extensions
from rest_catalog import Catalog

root = pathlib.Path(sys.argv[1])
only = sys.argv[2:]
release = "duckdb" if duckdb.__version__ == "1.5.5" else f"duckdb_{duckdb.__version__.replace('.', '')}"
work = root / release
shutil.rmtree(work, ignore_errors=True)
catalog = Catalog(work)
connection = duckdb.connect()
for extension in ("avro", "httpfs", "iceberg"):
    duckdb_extensions.import_extension(extension, con=connection)
    connection.load_extension(extension)
connection.sql("SET TimeZone = 'UTC'")
connection.sql(f"ATTACH '' AS ice (TYPE iceberg, ENDPOINT '{catalog.url}', AUTHORIZATION_TYPE 'none')")

failed = []


def state(name, *statements, definition="", layout=""):
    """A table: its columns, or its query after AS; how it is partitioned, and its options; then what is done to it. `@` is its
    name; what begins with `ALTER … PARTITIONED` is no business of DuckDB's own table."""
    name = f"{release}_{name}"
    if only and name not in only:
        return
    try:
        own, iceberg = f"memory.main.{name}", f"ice.db.{name}"
        connection.sql(f"CREATE TABLE {own} {definition}")
        connection.sql(f"CREATE TABLE {iceberg} {definition} {layout}" if definition.startswith("(") else f"CREATE TABLE {iceberg} {layout} {definition}")
        for statement in statements:
            connection.sql(statement.replace("@", iceberg))
            if "PARTITIONED" not in statement:
                connection.sql(statement.replace("@", own))
        try:
            difference = connection.sql(f"(FROM {iceberg} EXCEPT ALL FROM {own}) UNION ALL (FROM {own} EXCEPT ALL FROM {iceberg})")
            assert not (found := difference.limit(3).fetchall()), found
            answer = iceberg
        except duckdb.Error as error:
            print(f"{name}: DuckDB does not read what it wrote: {str(error).splitlines()[0]}")
            answer = own
        folder = root / "states" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copytree(work / name, folder / "table")
        connection.sql(f"COPY (FROM {answer}) TO '{folder}/expected.parquet'")
    except Exception as error:
        failed.append(name)
        print(f"{name}: {error}")


NUMBERS = "AS SELECT i::BIGINT AS id, (i % 10)::INT AS k, 'name ' || i AS name FROM range(1000) r(i)"
V3 = "WITH ('format-version' = '3')"
DELETES = ["DELETE FROM @ WHERE id % 7 = 0", "DELETE FROM @ WHERE id % 5 = 0", "DELETE FROM @ WHERE id BETWEEN 400 AND 450"]
if release != "duckdb":
    # It writes a second vector for a file and then refuses to read the two.
    DELETES.pop()

state("v3_vectors", *DELETES, definition=NUMBERS, layout=V3)
state("v3_vectors_half", "DELETE FROM @ WHERE id % 2 = 0", definition=NUMBERS, layout=V3)
state("v3_updates", "UPDATE @ SET name = 'changed' WHERE id % 9 = 0", DELETES[1], definition=NUMBERS, layout=V3)
if release == "duckdb":
    TYPES = """(b BOOLEAN, i INT, l BIGINT, f FLOAT, d DOUBLE, n DECIMAL(38, 10), m DECIMAL(4, 2), dt DATE, tm TIME, ts TIMESTAMP,
        tz TIMESTAMPTZ, s VARCHAR, u UUID, bl BLOB, st STRUCT(x INT, y VARCHAR, z STRUCT(a DOUBLE)), li INT[], ll STRUCT(q INT)[],
        mp MAP(VARCHAR, INT))"""
    ROWS = """INSERT INTO @ SELECT i % 2 = 0, i - 50, i * 10000000000, CASE WHEN i % 10 = 0 THEN 'nan' ELSE i / 8 END::FLOAT,
        CASE WHEN i % 10 = 1 THEN '-0.0' WHEN i % 10 = 2 THEN 'nan' WHEN i % 10 = 3 THEN '-infinity' ELSE i / 3 END::DOUBLE,
        (i - 50) * 1234567.0000000891, (i - 50) / 8, DATE '1969-11-20' + i::INT, TIME '00:00:00.000001' + to_minutes(i),
        TIMESTAMP '1969-12-30 23:59:59.999999' + to_hours(i), TIMESTAMPTZ '1969-12-30 00:00:00+02' + to_hours(i),
        ['short', 'a text that is longer than any prefix', ''][i % 3 + 1] || i, md5(i::VARCHAR)::UUID, encode('é' || i),
        {'x': i, 'y': CASE WHEN i % 4 = 0 THEN NULL ELSE 'y' || i END, 'z': {'a': i / 7}}, [i, NULL, 3], [{'q': i}], MAP {'a': i, 'b': NULL}
        FROM range(100) r(i)"""
    NOTHING = "INSERT INTO @ SELECT" + ", ".join([" NULL"] * 18)
    for version in (2, 3):
        state(f"v{version}_types", ROWS, NOTHING, definition=TYPES, layout=f"WITH ('format-version' = '{version}')")
        state(f"v{version}_types_deleted", ROWS, NOTHING, "DELETE FROM @ WHERE i % 3 = 0 OR i IS NULL", definition=TYPES,
              layout=f"WITH ('format-version' = '{version}')")
    # 1.5.3 writes the vector of one of the partitions only.
    state("v3_vectors_partitioned", "INSERT INTO @ SELECT i, i % 3, 'x' FROM range(90) r(i)", *DELETES,
          definition="(id BIGINT, k INT, name VARCHAR)", layout=f"PARTITIONED BY (k) {V3}")
    state("v2_deletes", *DELETES, definition=NUMBERS)
    state("v2_deletes_half", "DELETE FROM @ WHERE id % 2 = 0", definition=NUMBERS)
    state("v2_deletes_partitioned", "INSERT INTO @ SELECT i, i % 3, 'x' FROM range(90) r(i)", *DELETES,
          definition="(id BIGINT, k INT, name VARCHAR)", layout="PARTITIONED BY (k)")
    state("v2_updates", "UPDATE @ SET name = 'changed' WHERE id % 9 = 0", *DELETES, definition=NUMBERS)
    state("v2_merge", """MERGE INTO @ AS t USING (SELECT i::BIGINT AS id FROM range(990, 1010) r(i)) AS s ON t.id = s.id
          WHEN MATCHED THEN UPDATE SET name = 'met' WHEN NOT MATCHED THEN INSERT VALUES (s.id, 0, 'new')""", definition=NUMBERS)
    state("v2_empty", definition="(id BIGINT)")
    state("v2_all_deleted", "DELETE FROM @", definition=NUMBERS)
    state("v3_all_deleted", "DELETE FROM @", definition=NUMBERS, layout=V3)
    state("v2_evolved", "INSERT INTO @ VALUES (1, 'x', 1.5, {'a': 1})", "ALTER TABLE @ ADD COLUMN b DOUBLE",
          "ALTER TABLE @ RENAME COLUMN s TO t", "ALTER TABLE @ ALTER a TYPE BIGINT", "ALTER TABLE @ ALTER f TYPE DOUBLE",
          "INSERT INTO @ VALUES (5000000000, 'y', 2.5, {'a': 2}, 7)", "DELETE FROM @ WHERE a = 1",
          "INSERT INTO @ VALUES (2, 'z', 3.5, NULL, NULL)", definition="(a INT, s VARCHAR, f FLOAT, st STRUCT(a INT))")
    state("v2_dropped_and_added_again", "INSERT INTO @ VALUES (1, 'old')", "ALTER TABLE @ DROP COLUMN s",
          "INSERT INTO @ VALUES (2)", "ALTER TABLE @ ADD COLUMN s VARCHAR", "INSERT INTO @ VALUES (3, 'new')",
          definition="(a INT, s VARCHAR)")
    state("v3_defaults", "INSERT INTO @ (b) VALUES ('x')", "ALTER TABLE @ ADD COLUMN c INT DEFAULT 42",
          "INSERT INTO @ (b) VALUES ('y')", definition="(a BIGINT DEFAULT 5, b VARCHAR)", layout=V3)
    state("v3_nanoseconds", "INSERT INTO @ SELECT TIMESTAMP_NS '1969-12-31 23:59:59.123456789' + to_hours(i), i FROM range(50) r(i)",
          "DELETE FROM @ WHERE i % 6 = 0", definition="(ts TIMESTAMP_NS, i INT)", layout=V3)
    state("v3_nanoseconds_by_hour", "INSERT INTO @ SELECT TIMESTAMP_NS '1969-12-31 20:59:59.123456789' + to_minutes(i * 17), i FROM range(50) r(i)",
          "DELETE FROM @ WHERE i % 6 = 0", definition="(ts TIMESTAMP_NS, i INT)", layout=f"PARTITIONED BY (hour(ts)) {V3}")
    state("v3_nanoseconds_by_bucket", "INSERT INTO @ SELECT TIMESTAMP_NS '1969-12-31 20:59:59.123456789' + to_minutes(i * 17), i FROM range(50) r(i)",
          definition="(ts TIMESTAMP_NS, i INT)", layout=f"PARTITIONED BY (bucket(3, ts)) {V3}")
    MOMENTS = """(d DATE, ts TIMESTAMP, tz TIMESTAMPTZ, i INT, l BIGINT, s VARCHAR, n DECIMAL(9, 2), u UUID, bl BLOB)"""
    MANY = """INSERT INTO @ SELECT DATE '1969-11-01' + (i * 3)::INT, TIMESTAMP '1969-12-30 12:00:00' + to_hours(i * 5),
        TIMESTAMPTZ '1969-12-30 12:00:00+00' + to_hours(i * 5), i, i * 7, 'ü' || i, i / 4, md5((i % 4)::VARCHAR)::UUID,
        encode('b' || i % 5) FROM range(-30, 30) r(i)"""
    NONE = "INSERT INTO @ SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL"
    for title, fields in {
        "year": "year(d), year(ts)", "month": "month(d), month(tz)", "day": "day(d)", "day_of_ts": "day(ts)", "hour": "hour(tz)",
        "bucket": "bucket(4, s), bucket(3, l)", "bucket_of_moments": "bucket(5, d), bucket(4, n)",
        "bucket_of_bytes": "bucket(4, u), bucket(4, bl)", "truncate": "truncate(2, s), truncate(10, i)",
        "truncate_decimal": "truncate(50, n)", "uuid": "u", "identity": "d, n", "identity_of_ts": "ts", "identity_of_tz": "tz",
        "identity_of_bytes": "bl",
    }.items():
        state(f"v2_by_{title}", MANY, NONE, "DELETE FROM @ WHERE i % 8 = 0", definition=MOMENTS, layout=f"PARTITIONED BY ({fields})")
    state("v2_specs", "INSERT INTO @ SELECT i, i % 3, 'a' FROM range(30) r(i)", "ALTER TABLE @ SET PARTITIONED BY (k)",
          "INSERT INTO @ SELECT i, i % 3, 'b' FROM range(30, 60) r(i)", "ALTER TABLE @ SET PARTITIONED BY (bucket(4, name))",
          "INSERT INTO @ SELECT i, i % 3, 'c' || i FROM range(60, 90) r(i)", "DELETE FROM @ WHERE id % 4 = 0",
          definition="(id BIGINT, k INT, name VARCHAR)")
if failed:
    sys.exit(f"{release}: failed: {', '.join(failed)}")
