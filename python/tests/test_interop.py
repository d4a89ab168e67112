"""Row for row: our tables read by PyIceberg and DuckDB, PyIceberg's tables read here. DuckDB runs in a process of its own."""

import datetime
import decimal
import json
import re
import shutil
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest
from pyiceberg.catalog.sql import SqlCatalog

import tarndb

SCHEMA = pyarrow.schema(
    [
        ("id", pyarrow.int64()), ("b", pyarrow.bool_()), ("i", pyarrow.int32()), ("f", pyarrow.float32()),
        ("d", pyarrow.float64()), ("p", pyarrow.decimal128(12, 2)), ("q", pyarrow.decimal128(38, 10)), ("day", pyarrow.date32()),
        ("t", pyarrow.time64("us")), ("ts", pyarrow.timestamp("us")), ("tz", pyarrow.timestamp("us", "UTC")),
        ("s", pyarrow.string()), ("fx", pyarrow.binary(4)), ("bin", pyarrow.binary()),
        ("st", pyarrow.struct([("a", pyarrow.int32()), ("b", pyarrow.list_(pyarrow.string()))])),
        ("xs", pyarrow.list_(pyarrow.int64())), ("m", pyarrow.map_(pyarrow.string(), pyarrow.float64())),
    ]
)


def rows(count: int) -> pyarrow.Table:
    utc = datetime.timezone.utc
    made = []
    for n in range(count):
        row = {
            "id": n, "b": n % 2 == 0, "i": -n, "f": n / 4, "d": n / 8, "p": decimal.Decimal(n) / 4 - 3,
            "q": decimal.Decimal(n) ** 9 / 1000, "day": datetime.date(1969, 12, 20) + datetime.timedelta(days=n),
            "t": datetime.time(n % 24, 1, 2, n), "ts": datetime.datetime(1969, 12, 31, 20) + datetime.timedelta(hours=n),
            "tz": datetime.datetime(1969, 12, 31, 20, tzinfo=utc) + datetime.timedelta(hours=n, microseconds=n),
            "s": f"text {n} " + "long " * (n % 7), "fx": bytes([n % 256] * 4), "bin": bytes(range(n % 5)),
            "st": {"a": n, "b": [f"e{n}", None]}, "xs": list(range(n % 3)), "m": [(f"k{n}", n / 2)],
        }
        if n % 5 == 4:
            row = {"id": n}
        made.append(row)
    return pyarrow.Table.from_pylist(made, schema=SCHEMA)


PARTITIONINGS = [
    [],
    ["bucket(3, id)", "month(day)"],
    ["truncate(4, s)", "b"],
    ["day(ts)", "bucket(2, s)"],
    ["hour(tz)", "truncate(10, p)"],
    ["year(day)", "i"],
]


def normal(table: pyarrow.Table) -> list[dict]:
    table = table.cast(SCHEMA) if table.schema != SCHEMA else table
    return sorted(table.to_pylist(), key=lambda row: row["id"])


def duckdb_table(metadata: str) -> pyarrow.Table:
    code = f"""
import duckdb, duckdb_extensions, sys
connection = duckdb.connect()
for extension in ("avro", "iceberg"):
    duckdb_extensions.import_extension(extension, con=connection)
    connection.load_extension(extension)
connection.sql("SET TimeZone = 'UTC'")
import pyarrow
table = connection.sql("SELECT * FROM iceberg_scan('{metadata}')").to_arrow_table()
with pyarrow.ipc.new_stream(sys.stdout.buffer, table.schema) as sink:
    sink.write_table(table)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return pyarrow.ipc.open_stream(done.stdout).read_all()


def duckdb_rows(metadata: str) -> list[dict]:
    return normal(duckdb_table(metadata))


@pytest.mark.parametrize("partition_by", PARTITIONINGS, ids=lambda fields: "+".join(fields) or "none")
def test_ours_read_by_others(tmp_path, partition_by):
    lake = tarndb.connect(str(tmp_path / "lake"))
    table = lake.create_table("t", SCHEMA, partition_by=partition_by)
    table.append(rows(40))
    table.append(rows(20))
    table.delete("id % 7 = 3")
    table.delete("id = 5 AND s LIKE 'text%'")
    ours = normal(table.scan().arrow())
    assert len(ours) == 60 - 6 - 3 - 2
    catalog = SqlCatalog("default", uri=f"sqlite:///{tmp_path}/lake/catalog.db")
    theirs = catalog.load_table("default.t")
    assert normal(theirs.scan().to_arrow()) == ours
    assert duckdb_rows(table.metadata_location) == ours
    # Their pruning by our bounds loses nothing.
    for condition, where in [("id >= 17", "id >= 17"), ("day < '1970-01-01'", "day < DATE '1970-01-01'"), ("s > 'text 3'", "s > 'text 3'")]:
        assert normal(theirs.scan(row_filter=condition).to_arrow()) == normal(table.scan(where=where).arrow()), condition
    table.rewrite_data_files(rewrite_all=True)
    assert normal(catalog.load_table("default.t").scan().to_arrow()) == ours
    assert duckdb_rows(table.metadata_location) == ours


@pytest.mark.parametrize("codec", ["zstd", "snappy", "gzip", "uncompressed"])
def test_page_checksums_are_those_of_arrow(tmp_path, codec):
    lake = tarndb.connect(str(tmp_path / "lake"))
    table = lake.create_table("t", SCHEMA, properties={"write.parquet.compression-codec": codec})
    table.append(rows(60))
    table.delete("id % 7 = 3")
    ours = normal(lake.table("t").scan().arrow())
    read = lambda path: pyarrow.parquet.ParquetFile(path, page_checksum_verification=True).read()
    data, deletes = sorted((tmp_path / "lake").rglob("*.parquet"), key=lambda path: path.name.endswith("-deletes.parquet"))
    gone = read(deletes)["pos"].to_pylist()
    assert [row for place, row in enumerate(normal(read(data))) if place not in gone] == ours
    column = pyarrow.parquet.ParquetFile(data).metadata.row_group(0).column(11)
    content = bytearray(data.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start + column.total_compressed_size - 1] ^= 1
    data.write_bytes(content)
    with pytest.raises(OSError, match="(?i)checksum|crc"):
        read(data)
    with pytest.raises(tarndb.DataInvalidError, match=data.name):
        tarndb.connect(str(tmp_path / "lake")).sql("SELECT s FROM t").arrow()


def test_files_that_tell_which_rows_have_a_value(tmp_path):
    lake = tarndb.connect(str(tmp_path / "lake"))
    columns = "id BIGINT, kind STRING, tags MAP<STRING, STRING>"
    lake.sql(f"CREATE TABLE t ({columns}) TBLPROPERTIES ('tarndb.bitmap-columns' = 'kind,tags')")
    pairs = pyarrow.map_(pyarrow.string(), pyarrow.string())
    tags = [[("team", f"team-{number % 90}"), ("id", str(number))] for number in range(5000)]
    kinds = [f"k{number % 70}" for number in range(5000)]
    table = pyarrow.table({"id": range(5000), "kind": kinds, "tags": pyarrow.array(tags, pairs)})
    listed = lambda found: sorted(found.cast(table.schema).to_pylist(), key=lambda row: row["id"])
    lake.table("t").append(table)
    [data] = (tmp_path / "lake").rglob("*.parquet")
    lake.table("t").delete("id % 7 = 3")
    plan = str(lake.sql("EXPLAIN ANALYZE SELECT id FROM t WHERE tags['team'] = 'team-8'").fetchall())
    assert "iceberg_rows_pruned_by_value=4.9" in plan
    ours = listed(lake.table("t").scan().arrow())
    wanted = [row["id"] for row in ours if dict(row["tags"])["team"] == "team-8" and row["kind"] != "k8"]
    found = lake.sql("SELECT id FROM t WHERE tags['team'] = 'team-8' AND kind <> 'k8' ORDER BY id").fetchall()
    assert [number for number, in found] == wanted and len(wanted) > 30

    catalog = SqlCatalog("default", uri=f"sqlite:///{tmp_path}/lake/catalog.db")
    theirs = catalog.load_table("default.t")
    assert listed(theirs.scan().to_arrow()) == ours
    assert listed(duckdb_table(lake.table("t").metadata_location)) == ours
    assert pyarrow.parquet.ParquetFile(data, page_checksum_verification=True).read().num_rows == 5000

    # Whoever writes such a file anew may copy what it does not know: that the rows are told of, and where.
    copied = pyarrow.parquet.read_table(data)
    assert b"tarndb.puffin" in copied.schema.metadata
    copied = copied.take(list(reversed(range(5000)))).replace_schema_metadata(copied.schema.metadata)
    pyarrow.parquet.write_table(copied, tmp_path / "lake" / "copied.parquet", compression="none", use_dictionary=False)
    lake.sql(f"CREATE TABLE other ({columns}) TBLPROPERTIES ('tarndb.bitmap-columns' = 'kind,tags')")
    other = catalog.load_table("default.other")
    other.add_files([str(tmp_path / "lake" / "copied.parquet")], check_duplicate_files=False)
    found = lake.sql("SELECT id FROM other WHERE tags['team'] = 'team-8' ORDER BY id").fetchall()
    assert found == [(number,) for number in range(5000) if number % 90 == 8]


@pytest.mark.parametrize("partition_by", [[], ["bucket(3, id)", "b"]], ids=["none", "partitioned"])
def test_version_3_read_by_others(tmp_path, partition_by):
    lake = tarndb.connect(str(tmp_path / "lake"))
    table = lake.create_table("t", SCHEMA, partition_by=partition_by, properties={"format-version": "3"})
    table.append(rows(40))
    table.append(rows(20))
    table.delete("id % 7 = 3")
    table.delete("id % 5 = 1 AND b")
    ours = normal(table.scan().arrow())
    assert 0 < len(ours) < 60
    theirs = SqlCatalog("default", uri=f"sqlite:///{tmp_path}/lake/catalog.db").load_table("default.t")
    assert theirs.metadata.format_version == 3
    assert normal(theirs.scan().to_arrow()) == ours
    assert duckdb_rows(table.metadata_location) == ours


def test_rows_keep_their_ids(tmp_path):
    lake = tarndb.connect(str(tmp_path / "lake"))
    table = lake.create_table("t", SCHEMA, properties={"format-version": "3"})
    table.append(rows(10))
    table.append(rows(10))
    table.delete("id = 3")

    def lineage() -> set[tuple]:
        found = set()
        for file in table.files().arrow().to_pylist():
            if file["content"] == 0:
                read = pyarrow.parquet.read_table(file["file_path"].removeprefix("file://"))
                found |= {(row["_row_id"], row["_last_updated_sequence_number"], row["id"]) for row in read.to_pylist()}
        return found

    def in_sql() -> set[tuple]:
        return set(lake.sql("SELECT _row_id, _last_updated_sequence_number, id FROM t").fetchall())

    # Two appends of ten rows each: ids count on, and a row was last changed by the commit that added it.
    expected = {(10 * part + n, part + 1, n) for part in range(2) for n in range(10) if n != 3}
    assert in_sql() == expected
    table.rewrite_data_files(rewrite_all=True)
    assert lineage() == in_sql() == expected
    table.append(rows(1))
    table.delete("id = 5")
    # Rows that moved already keep what the files hold; the new one gets an id that no row had.
    table.rewrite_data_files(rewrite_all=True)
    again = lineage()
    assert in_sql() == again
    kept = {row for row in expected if row[2] != 5}
    assert kept < again and len(again) == len(kept) + 1
    [(row_id, number, _)] = again - kept
    assert row_id >= 20 and number == 5
    theirs = SqlCatalog("default", uri=f"sqlite:///{tmp_path}/lake/catalog.db").load_table("default.t")
    assert normal(theirs.scan().to_arrow()) == normal(table.scan().arrow())


def test_partitions_by_uuid(tmp_path):
    lake = tarndb.connect(str(tmp_path / "lake"))
    lake.sql("CREATE TABLE t (u UUID, n INT) PARTITIONED BY (u)")
    for n in range(3):
        lake.sql(f"INSERT INTO t VALUES ('00000000-0000-0000-0000-00000000000{n}', {n}), (NULL, {n + 10}), ('f81d4fae-7dec-11d0-a765-00a0c91e6bf6', {n + 20})")
    lake.sql("DELETE FROM t WHERE n = 1 OR n = 21")
    expected = [(row["u"], row["n"]) for row in lake.sql("SELECT u, n FROM t ORDER BY n").arrow().to_pylist()]
    assert len(expected) == 7
    theirs = SqlCatalog("default", uri=f"sqlite:///{tmp_path}/lake/catalog.db").load_table("default.t")
    found = sorted(theirs.scan().to_arrow().to_pylist(), key=lambda row: row["n"])
    assert [(row["u"], row["n"]) for row in found] == expected
    found = sorted(duckdb_table(lake.table("t").metadata_location).to_pylist(), key=lambda row: row["n"])
    assert [row["n"] for row in found] == [n for _, n in expected]


def test_pyiceberg_tables_read_here(tmp_path):
    from pyiceberg.partitioning import PartitionField, PartitionSpec
    from pyiceberg.schema import Schema
    from pyiceberg.transforms import DayTransform, IdentityTransform, MonthTransform, TruncateTransform, YearTransform

    lake = tarndb.connect(str(tmp_path / "lake"))
    catalog = SqlCatalog("default", uri=f"sqlite:///{tmp_path}/lake/catalog.db", warehouse=f"file://{tmp_path}/lake")
    transforms = [(None, None), ("day", MonthTransform()), ("s", TruncateTransform(4)), ("b", IdentityTransform()), ("tz", DayTransform()), ("ts", YearTransform())]
    for number, (column, transform) in enumerate(transforms):
        name = f"default.py{number}"
        theirs = catalog.create_table(name, SCHEMA)
        if column:
            with theirs.update_spec() as update:
                update.add_field(column, transform, f"{column}_part")
        theirs.append(rows(40))
        theirs.append(rows(10))
        theirs.delete("id == 3")
        ours = lake.table(name)
        assert normal(ours.scan().arrow()) == normal(theirs.scan().to_arrow()), name
        for where, condition in [("id > 30", "id > 30"), ("day < DATE '1970-01-01'", "day < '1970-01-01'"), ("s = 'text 0 '", "s == 'text 0 '"), ("b", "b == true")]:
            assert normal(ours.scan(where=where).arrow()) == normal(theirs.scan(row_filter=condition).to_arrow()), (name, where)
        # Both write to one table.
        ours.append(rows(5))
        ours.delete("id = 4 OR id = 6")
        theirs.refresh()
        assert normal(theirs.scan().to_arrow()) == normal(ours.scan().arrow()), name
        ours.rewrite_data_files(rewrite_all=True)
        theirs.refresh()
        theirs.append(rows(1))
        assert normal(theirs.scan().to_arrow()) == normal(lake.table(name).scan().arrow()), name


def test_altered_tables_read_by_others(tmp_path):
    lake = tarndb.connect(str(tmp_path / "lake"))
    lake.sql("CREATE TABLE t (id INT, i INT, s STRING, d DATE) PARTITIONED BY (month(d))")
    lake.sql("INSERT INTO t VALUES (1, 1, 'a', '2026-01-01'), (2, 2, 'b', '2026-02-01')")
    lake.sql("ALTER TABLE t RENAME COLUMN s TO text, ALTER COLUMN i TYPE BIGINT, ADD COLUMN late DOUBLE FIRST")
    lake.sql("ALTER TABLE t REPLACE PARTITION FIELD month(d) WITH bucket(4, id)")
    lake.sql("INSERT INTO t (id, i, text, late) VALUES (3, 5000000000, 'c', 1.5)")
    lake.sql("ALTER TABLE t DROP COLUMN d")
    lake.sql("DELETE FROM t WHERE id = 1")
    ours = lake.sql("SELECT * FROM t ORDER BY id").arrow().to_pylist()
    assert ours == [{"late": None, "id": 2, "i": 2, "text": "b"}, {"late": 1.5, "id": 3, "i": 5_000_000_000, "text": "c"}]
    theirs = SqlCatalog("default", uri=f"sqlite:///{tmp_path}/lake/catalog.db").load_table("default.t")
    assert sorted(theirs.scan().to_arrow().to_pylist(), key=lambda row: row["id"]) == ours
    found = duckdb_table(lake.table("t").metadata_location).to_pylist()
    assert sorted(found, key=lambda row: row["id"]) == ours


def test_tables_by_their_path(tmp_path):
    lake = tarndb.connect(str(tmp_path / "lake"))
    table = lake.create_table("t", SCHEMA, partition_by=["day(ts)"])
    table.append(rows(30))
    table.delete("id = 3")
    ours = normal(table.scan().arrow())
    folder = table.location.removeprefix("file://")
    shutil.move(folder, tmp_path / "moved")
    lake.close()
    assert normal(tarndb.read_iceberg(tmp_path / "moved").arrow()) == ours
    [newest] = sorted((tmp_path / "moved" / "metadata").glob("00002-*.metadata.json"))
    assert normal(tarndb.read_iceberg(str(newest)).arrow()) == ours
    assert len(tarndb.connect("memory://").sql(f"SELECT * FROM iceberg_scan('{tmp_path}/moved') WHERE id > 20").arrow()) == 9
    with pytest.raises(tarndb.NotFoundError, match="no Iceberg table"):
        tarndb.read_iceberg(tmp_path / "nothing")


def test_evolved_tables_of_pyiceberg(tmp_path):
    from pyiceberg.types import LongType, StringType

    lake = tarndb.connect(str(tmp_path / "lake"))
    catalog = SqlCatalog("default", uri=f"sqlite:///{tmp_path}/lake/catalog.db", warehouse=f"file://{tmp_path}/lake")
    schema = pyarrow.schema([("a", pyarrow.int32()), ("b", pyarrow.string()), ("st", pyarrow.struct([("x", pyarrow.int32())]))])
    theirs = catalog.create_table("default.t", schema)
    theirs.append(pyarrow.Table.from_pylist([{"a": 1, "b": "one", "st": {"x": 1}}], schema=schema))
    with theirs.update_schema() as update:
        update.rename_column("b", "c")
    with theirs.update_schema() as update:
        update.update_column("a", LongType())
        update.add_column("b", StringType())
        update.add_column(("st", "y"), StringType())
        update.move_first("c")
    theirs.append(
        pyarrow.Table.from_pylist(
            [{"c": "two", "a": 2**40, "b": "new", "st": {"x": 2, "y": "why"}}],
            schema=pyarrow.schema([("c", pyarrow.string()), ("a", pyarrow.int64()), ("st", pyarrow.struct([("x", pyarrow.int32()), ("y", pyarrow.string())])), ("b", pyarrow.string())]),
        )
    )
    ours = lake.table("t").scan().arrow().sort_by("a").to_pylist()
    assert ours == theirs.scan().to_arrow().sort_by("a").to_pylist()
    assert lake.sql("SELECT c FROM t WHERE b IS NULL").fetchall() == [("one",)]
    assert lake.sql("SELECT a FROM t WHERE st['y'] = 'why'").fetchall() == [(2**40,)]
    assert lake.sql("SELECT a FROM t WHERE a < 5").fetchall() == [(1,)]


def test_fields_inside_lists_and_maps_evolve(tmp_path):
    from pyiceberg.schema import Schema
    from pyiceberg.types import IntegerType, ListType, LongType, MapType, NestedField, StringType, StructType

    lake = tarndb.connect(tmp_path / "lake")
    item = StructType(NestedField(10, "a", IntegerType()), NestedField(11, "b", IntegerType()), NestedField(12, "s", StringType()))
    schema = Schema(
        NestedField(1, "id", LongType()),
        NestedField(2, "xs", ListType(3, item, element_required=False)),
        NestedField(4, "m", MapType(5, StringType(), 6, ListType(7, StructType(NestedField(8, "p", IntegerType()))))),
    )
    catalog = SqlCatalog("default", uri=f"sqlite:///{tmp_path}/lake/catalog.db", warehouse=f"file://{tmp_path}/lake")
    table = catalog.create_table("default.t", schema)
    first = [
        {"id": 1, "xs": [{"a": 1, "b": 2, "s": "x"}, None], "m": [("k", [{"p": 7}])]},
        {"id": 2, "xs": [None], "m": None},
        {"id": 3, "xs": [], "m": []},
    ]
    table.append(pyarrow.Table.from_pylist(first, schema=table.schema().as_arrow()))
    with table.update_schema() as update:
        update.rename_column(("xs", "element", "a"), "c")
        update.rename_column(("xs", "element", "b"), "a")
        update.add_column(("xs", "element", "d"), LongType())
        update.move_first(("xs", "element", "s"))
        update.add_column(("m", "value", "element", "q"), StringType())
    second = [{"id": 4, "xs": [{"s": "y", "c": 3, "a": 4, "d": 5}], "m": [("k", [{"p": 8, "q": "z"}])]}]
    table.append(pyarrow.Table.from_pylist(second, schema=table.schema().as_arrow()))
    expected = [
        (1, [{"s": "x", "c": 1, "a": 2, "d": None}, None], {"k": [{"p": 7, "q": None}]}),
        (2, [None], None),
        (3, [], {}),
        (4, [{"s": "y", "c": 3, "a": 4, "d": 5}], {"k": [{"p": 8, "q": "z"}]}),
    ]
    assert lake.sql("SELECT * FROM t ORDER BY id").fetchall() == expected
    assert lake.sql("SELECT xs[1]['a'], xs[1]['c'] FROM t WHERE id IN (1, 4) ORDER BY id").fetchall() == [(2, 1), (4, 3)]
    lake.table("t").rewrite_data_files(rewrite_all=True)
    assert lake.sql("SELECT * FROM t ORDER BY id").fetchall() == expected


def test_files_without_ids_are_read_by_name_mapping(tmp_path):
    import pyarrow.parquet

    lake = tarndb.connect(str(tmp_path / "lake"))
    catalog = SqlCatalog("default", uri=f"sqlite:///{tmp_path}/lake/catalog.db", warehouse=f"file://{tmp_path}/lake")
    data = pyarrow.table({"id": [1, 2], "s": ["one", "two"], "st": [{"x": 1}, {"x": 2}]})
    theirs = catalog.create_table("default.t", data.schema)
    file = tmp_path / "lake" / "plain.parquet"
    pyarrow.parquet.write_table(data, file)
    theirs.add_files([f"file://{file}"])
    with theirs.update_schema() as update:
        update.rename_column("s", "text")
        update.rename_column(("st", "x"), "y")
    expected = theirs.scan().to_arrow().to_pylist()
    assert expected[0] == {"id": 1, "text": "one", "st": {"y": 1}}
    ours = lake.table("t")
    assert ours.scan().arrow().to_pylist() == expected
    assert lake.sql("SELECT id FROM t WHERE text = 'two' AND st['y'] = 2").fetchall() == [(2,)]
    assert ours.delete("text = 'one'")["rows"] == 1
    ours.rewrite_data_files(rewrite_all=True)
    theirs.refresh()
    assert theirs.scan().to_arrow().to_pylist() == expected[1:]
    assert lake.table("t").scan().arrow().to_pylist() == expected[1:]


def test_promoted_partition_columns_can_be_rewritten(tmp_path):
    from pyiceberg.types import LongType

    lake = tarndb.connect(str(tmp_path / "lake"))
    catalog = SqlCatalog("default", uri=f"sqlite:///{tmp_path}/lake/catalog.db", warehouse=f"file://{tmp_path}/lake")
    lake.sql("CREATE TABLE t (a INT, b STRING) PARTITIONED BY (a)")
    lake.sql("INSERT INTO t VALUES (1, 'x'), (2, 'y')")
    with catalog.load_table("default.t").update_schema() as update:
        update.update_column("a", LongType())
    lake.sql("INSERT INTO t VALUES (1099511627776, 'z')")
    assert lake.sql("DELETE FROM t WHERE a = 1").fetchall() == [(1,)]
    lake.table("t").rewrite_data_files(rewrite_all=True)
    expected = [{"a": 2, "b": "y"}, {"a": 2**40, "b": "z"}]
    assert lake.table("t").scan().arrow().sort_by("a").to_pylist() == expected
    assert catalog.load_table("default.t").scan().to_arrow().sort_by("a").to_pylist() == expected


def test_upkeep_stays_in_the_tables_own_folder(tmp_path):
    import pyarrow.parquet

    lake = tarndb.connect(str(tmp_path / "lake"))
    catalog = SqlCatalog("default", uri=f"sqlite:///{tmp_path}/lake/catalog.db", warehouse=f"file://{tmp_path}/lake")
    data = pyarrow.table({"id": [1, 2]})
    catalog.create_table("default.whole", data.schema, location=f"file://{tmp_path}/lake").append(data)
    with pytest.raises(tarndb.InvalidInputError, match="holds the whole lake"):
        lake.table("whole").remove_orphan_files(force=True)
    with pytest.raises(tarndb.InvalidInputError, match="holds the whole lake"):
        lake.drop_table("whole", purge=True)
    assert (tmp_path / "lake" / "catalog.db").exists()
    lake.drop_table("whole")
    # A file that two tables share goes with neither.
    shared = tmp_path / "lake" / "shared.parquet"
    pyarrow.parquet.write_table(data, shared)
    for name in ("a", "b"):
        catalog.create_table(f"default.{name}", data.schema).add_files([f"file://{shared}"])
    lake.sql("DELETE FROM a")
    lake.sql("VACUUM a RETAIN 0 HOURS")
    assert lake.sql("SELECT count(*) FROM b").fetchall() == [(2,)]


def test_branches_have_the_current_schema(tmp_path):
    from pyiceberg.types import StringType

    lake = tarndb.connect(str(tmp_path / "lake"))
    catalog = SqlCatalog("default", uri=f"sqlite:///{tmp_path}/lake/catalog.db", warehouse=f"file://{tmp_path}/lake")
    lake.sql("CREATE TABLE t AS SELECT 1 AS id")
    with catalog.load_table("default.t").update_schema() as update:
        update.add_column("s", StringType())
    assert lake.sql("SELECT * FROM t FOR VERSION AS OF 'main'").arrow().column_names == ["id", "s"]
    snapshot = lake.table("t").current_snapshot_id
    assert lake.sql(f"SELECT * FROM t FOR VERSION AS OF {snapshot}").arrow().column_names == ["id"]


def test_uuids(tmp_path):
    import uuid

    from pyiceberg.schema import Schema
    from pyiceberg.types import NestedField, UUIDType

    def plain(values) -> list[bytes]:
        return sorted(each.bytes if isinstance(each, uuid.UUID) else each for each in values)

    lake = tarndb.connect(str(tmp_path / "lake"))
    catalog = SqlCatalog("default", uri=f"sqlite:///{tmp_path}/lake/catalog.db", warehouse=f"file://{tmp_path}/lake")
    ids = [uuid.UUID(int=n) for n in (1, 2**64, 2**127)]
    data = pyarrow.table({"u": pyarrow.array([each.bytes for each in ids], pyarrow.binary(16))})
    lake.sql("CREATE TABLE t (u UUID) PARTITIONED BY (bucket(4, u))")
    lake.table("t").append(data)
    assert sorted(row[0] for row in lake.sql("SELECT u FROM t").fetchall()) == ids
    assert lake.sql(f"DELETE FROM t WHERE u = X'{ids[1].hex}'").fetchall() == [(1,)]
    left = [ids[0].bytes, ids[2].bytes]
    assert plain(catalog.load_table("default.t").scan().to_arrow()["u"].to_pylist()) == left
    assert plain(uuid.UUID(str(each)) for each in duckdb_table(lake.table("t").metadata_location)["u"].to_pylist()) == left

    theirs = catalog.create_table("default.theirs", Schema(NestedField(1, "u", UUIDType())))
    theirs.append(pyarrow.table({"u": pyarrow.array([each.bytes for each in ids], pyarrow.uuid())}))
    assert sorted(row[0] for row in lake.sql("SELECT u FROM theirs").fetchall()) == ids


def test_many_writers_of_both_kinds(tmp_path):
    """Appends of ours never fail beside PyIceberg's, and nothing is lost."""
    lake = tarndb.connect(str(tmp_path / "lake"))
    table = lake.create_table("t", pyarrow.schema([("id", pyarrow.int64())]))
    code = f"""
import json, sys, pyarrow
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException
catalog = SqlCatalog("default", uri="sqlite:///{tmp_path}/lake/catalog.db")
done = []
for n in range(1000, 1010):
    try:
        catalog.load_table("default.t").append(pyarrow.table({{"id": [n]}}))
        done.append(n)
    except Exception:
        pass
print(json.dumps(done))
"""
    peer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    for n in range(30):
        table.append([{"id": n}])
    theirs = json.loads(peer.communicate(timeout=120)[0])
    assert sorted(row[0] for row in table.scan()) == sorted(list(range(30)) + theirs)


def test_files_name_their_writer_as_parquet_java_reads_it(tmp_path):
    """It takes the name and the version apart at the word between them, and leaves out statistics of a file of an unknown writer."""
    with tarndb.connect(tmp_path / "lake") as lake:
        lake.create_table("t", [{"a": "x"}])
        ((path,),) = lake.sql('SELECT file_path FROM "t$files"').fetchall()
        assert re.fullmatch(r"tarndb version \d+\.\d+\.\d+", pyarrow.parquet.read_metadata(path.removeprefix("file://")).created_by)
