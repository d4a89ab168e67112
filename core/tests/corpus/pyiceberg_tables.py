"""Tables of PyIceberg, each with what PyIceberg reads from it. Run by make.sh."""

import datetime
import decimal
import pathlib
import shutil
import sys
import uuid

import pyarrow
import pyarrow.parquet
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import (
    BucketTransform, DayTransform, HourTransform, IdentityTransform, MonthTransform, TruncateTransform, YearTransform,
)
from pyiceberg.types import (
    BinaryType, BooleanType, DateType, DecimalType, DoubleType, FixedType, FloatType, IntegerType, ListType, LongType, MapType,
    NestedField, StringType, StructType, TimestampType, TimestamptzType, TimeType, UUIDType,
)

root = pathlib.Path(sys.argv[1])
only = sys.argv[2:]
work = root / "pyiceberg"
work.mkdir(parents=True, exist_ok=True)
catalog = SqlCatalog("default", uri=f"sqlite:///{work}/catalog.db", warehouse=f"file://{work}")
catalog.create_namespace("db")

SCHEMA = Schema(
    NestedField(1, "id", LongType()), NestedField(2, "i", IntegerType()), NestedField(3, "x", DoubleType()),
    NestedField(4, "f", FloatType()), NestedField(5, "p", DecimalType(12, 3)), NestedField(6, "q", DecimalType(38, 10)),
    NestedField(7, "d", DateType()), NestedField(8, "t", TimeType()), NestedField(9, "ts", TimestampType()),
    NestedField(10, "tz", TimestamptzType()), NestedField(11, "s", StringType()), NestedField(12, "b", BooleanType()),
    NestedField(13, "bin", BinaryType()), NestedField(14, "fx", FixedType(4)), NestedField(15, "u", UUIDType()),
    NestedField(16, "st", StructType(NestedField(17, "a", IntegerType()), NestedField(18, "k", StringType()))),
    NestedField(19, "l", ListType(20, LongType(), element_required=False)),
    NestedField(21, "m", MapType(22, StringType(), 23, DoubleType(), value_required=False)),
)


def rows(start, count, schema):
    utc = datetime.timezone.utc
    made = []
    for n in range(start, start + count):
        k = (n * 7919) % 1000 - 500
        row = {
            "id": n, "i": k, "x": float("nan") if n % 11 == 0 else (-0.0 if n % 11 == 1 else k / 8), "f": k / 4,
            "p": decimal.Decimal(k) / 8, "q": decimal.Decimal(k) * 10**20, "d": datetime.date(1970, 1, 1) + datetime.timedelta(days=k * 3),
            "t": datetime.time(n % 24, n % 60, 3, n), "ts": datetime.datetime(1970, 1, 1) + datetime.timedelta(hours=k * 13, microseconds=n),
            "tz": datetime.datetime(1970, 1, 1, tzinfo=utc) + datetime.timedelta(hours=k * 13), "s": ["short", "ü" * 20 + str(k % 7)][n % 2] + str(k % 9),
            "b": k % 2 == 0, "bin": bytes([n % 256, 255]), "fx": n.to_bytes(4, "big"), "u": uuid.UUID(int=(k % 5) << 100 | n % 3).bytes,
            "st": {"a": k, "k": f"k{k}"}, "l": [k, None, 3], "m": [(f"m{k % 3}", k / 2), ("z", None)],
        }
        made.append({"id": n} if n % 8 == 7 else row)
    return pyarrow.Table.from_pylist(made, schema=schema)


failed = []


def state(name, *steps, schema=SCHEMA, spec=(), version=2, **properties):
    """Creates the table, runs the steps on it, and keeps it with what PyIceberg reads from it."""
    if only and name not in only:
        return
    print(name, flush=True)
    try:
        fields = [PartitionField(schema.find_field(column).field_id, 1000 + index, transform, f"{column}_{index}")
                  for index, (column, transform) in enumerate(spec)]
        table = catalog.create_table(f"db.{name}", schema, partition_spec=PartitionSpec(*fields),
                                     properties={"format-version": str(version), **{k.replace("_", "."): v for k, v in properties.items()}})
        for step in steps:
            step(table)
        table = catalog.load_table(f"db.{name}")
        target = root / "states" / f"pyiceberg_{name}"
        target.mkdir(parents=True)
        answer = table.scan().to_arrow()
        pyarrow.parquet.write_table(answer, target / "expected.parquet", store_schema=False)
        shutil.copytree(work / "db" / name, target / "table")
    except Exception as error:
        failed.append(name)
        print(f"{name} FAILED: {type(error).__name__} {str(error)[:500]}", flush=True)


def append(start, count):
    return lambda table: table.append(rows(start, count, table.schema().as_arrow()))


TWO = [append(0, 30), append(30, 10)]
for version in (1, 2):
    state(f"v{version}_types", *TWO, version=version)
SPECS = {
    "identity_int": [("i", IdentityTransform())], "identity_long": [("id", IdentityTransform())], "identity_string": [("s", IdentityTransform())],
    "identity_bool": [("b", IdentityTransform())], "identity_date": [("d", IdentityTransform())], "identity_ts": [("ts", IdentityTransform())],
    "identity_tz": [("tz", IdentityTransform())], "identity_decimal": [("p", IdentityTransform())], "identity_wide": [("q", IdentityTransform())],
    "identity_fixed": [("fx", IdentityTransform())], "identity_binary": [("bin", IdentityTransform())],
    "identity_float": [("f", IdentityTransform())], "identity_time": [("t", IdentityTransform())],
    "bucket_uuid": [("u", BucketTransform(4))], "bucket_all": [("id", BucketTransform(3)), ("s", BucketTransform(2)), ("d", BucketTransform(2)),
                                                              ("p", BucketTransform(2)), ("tz", BucketTransform(2)), ("bin", BucketTransform(2))],
    "truncate_all": [("i", TruncateTransform(100)), ("s", TruncateTransform(3)), ("p", TruncateTransform(50))],
    "year": [("d", YearTransform()), ("ts", YearTransform())], "month": [("tz", MonthTransform())], "day": [("ts", DayTransform())],
    "hour": [("tz", HourTransform())],
}
for label, spec in SPECS.items():
    state(f"part_{label}", *TWO, spec=spec)
state("overwritten", *TWO, lambda table: table.overwrite(rows(100, 5, table.schema().as_arrow())))
state("copy_on_write", *TWO, lambda table: table.delete("id < 12"), lambda table: table.delete("s == 'short3'"),
      spec=[("b", IdentityTransform())])
state("upserted", lambda table: table.append(pyarrow.table({"a": [1, 2], "v": ["x", "y"]})),
      lambda table: table.upsert(pyarrow.table({"a": [2, 3], "v": ["z", "w"]}), join_cols=["a"]),
      schema=Schema(NestedField(1, "a", LongType()), NestedField(2, "v", StringType())))


def evolve(table):
    with table.update_schema() as update:
        update.update_column("i", LongType())
        update.update_column("f", DoubleType())
        update.update_column("p", DecimalType(20, 3))
        update.delete_column("s")
        update.add_column(("st", "z"), StringType())
        update.move_first("tz")
    with table.update_schema() as update:
        update.rename_column("i", "j")
        update.rename_column("st.a", "aa")
    with table.update_schema() as update:
        update.add_column("s", IntegerType())
    # What PyIceberg needs to write all columns again.
    table.append(pyarrow.Table.from_pylist([{"id": 500, "j": 5_000_000_000, "s": 5}], schema=table.schema().as_arrow()))


state("evolved", append(0, 20), evolve)


def respec(table):
    with table.update_spec() as update:
        update.add_field("d", YearTransform(), "y")
    table.append(rows(50, 10, table.schema().as_arrow()))
    with table.update_spec() as update:
        update.remove_field("b_0")
    table.append(rows(60, 10, table.schema().as_arrow()))


for version in (1, 2):
    state(f"v{version}_specs", append(0, 20), respec, spec=[("b", IdentityTransform())], version=version)


def add_files(partitioned):
    def step(table):
        folder = work / "db" / table.name()[-1] / "plain"
        folder.mkdir(parents=True)
        for k in range(3):
            columns = {"v": [f"v{k}", None], "id": [k, k + 10]}
            if not partitioned:
                columns["k"] = [k, k]
            # Without ids, and in another order than the table's.
            pyarrow.parquet.write_table(pyarrow.table(columns, schema=pyarrow.schema(
                [("v", pyarrow.string()), ("id", pyarrow.int64())] + ([] if partitioned else [("k", pyarrow.int64())]))), folder / f"{k}.parquet")
        table.add_files([f"file://{folder}/{k}.parquet" for k in range(3)])

    return step


TRIPLE = Schema(NestedField(1, "id", LongType()), NestedField(2, "v", StringType()), NestedField(3, "k", LongType()))
state("added_files", add_files(False), lambda table: table.append(pyarrow.table({"id": [77], "v": ["own"], "k": [7]})), schema=TRIPLE)
state("added_files_partitioned", add_files(False), schema=TRIPLE, spec=[("k", IdentityTransform())])
state("gzip", *TWO, write_metadata_compression_codec="gzip")
state("empty")
state("deleted", *TWO, lambda table: table.delete())
state("row_groups", append(0, 400), **{"write.parquet.row-group-limit": "50", "write.parquet.page-row-limit": "10"})
state("manifest_merge", *[append(10 * n, 3) for n in range(8)],
      **{"commit.manifest-merge.enabled": "true", "commit.manifest.min-count-to-merge": "2"})
state("no_metrics", *TWO, **{"write.metadata.metrics.default": "none"})
state("short_metrics", *TWO, **{"write.metadata.metrics.default": "truncate(1)"})
sys.exit(f"failed: {failed}" if failed else 0)
