"""The Python surface: every method, data of every library in and out, exceptions, cancelling."""

import datetime
import decimal
import os
import subprocess
import sys
import textwrap
import threading
import uuid

import pandas
import polars
import pyarrow
import pytest

import tarndb


@pytest.fixture
def lake(tmp_path):
    with tarndb.connect(str(tmp_path / "lake")) as lake:
        yield lake


def test_sql_and_results(lake):
    lake.sql("CREATE TABLE t (id BIGINT, s STRING)")
    assert lake.sql("INSERT INTO t VALUES (1, 'a'), (2, NULL)").fetchall() == [(2,)]
    result = lake.sql("SELECT * FROM t ORDER BY id")
    assert result.schema.names == ["id", "s"]
    assert len(result) == 2
    assert result.fetchall() == [(1, "a"), (2, None)]
    assert list(result) == [(1, "a"), (2, None)]
    assert [result.fetchone(), result.fetchone(), result.fetchone()] == [(1, "a"), (2, None), None]
    assert result.arrow().to_pydict() == {"id": [1, 2], "s": ["a", None]}
    assert result.pandas()["id"].tolist() == [1, 2]
    assert result.polars()["s"].to_list() == ["a", None]
    assert pyarrow.table(result).num_rows == 2
    assert "<table" in result._repr_html_()
    assert repr(result) == "Result(id: Int64, s: Utf8)"


def test_streams_are_read_once(lake):
    lake.sql("CREATE TABLE t AS SELECT value AS id FROM generate_series(1, 100000)")
    reader = lake.sql("SELECT id FROM t").fetch_batches()
    assert sum(batch.num_rows for batch in reader) == 100000
    result = lake.sql("SELECT id FROM t")
    assert pyarrow.RecordBatchReader.from_stream(result).read_all().num_rows == 100000
    with pytest.raises(tarndb.InvalidInputError, match="stream already"):
        result.fetchall()


def test_show(lake, capsys):
    lake.sql("SELECT value FROM generate_series(1, 30)").show(2)
    printed = capsys.readouterr().out
    assert "| 1 " in printed and "2 of 30 rows" in printed


def test_parameters(lake):
    lake.sql("CREATE TABLE t (id BIGINT, s STRING)")
    lake.sql("INSERT INTO t VALUES ($1, $2)", [7, "it's"])
    assert lake.sql("SELECT s FROM t WHERE id = $1", [7]).fetchone() == ("it's",)
    assert lake.sql("SELECT id FROM t WHERE s = $name", {"name": "it's"}).fetchone() == (7,)
    assert lake.sql("SELECT $1", [datetime.date(2026, 1, 2)]).fetchone() == (datetime.date(2026, 1, 2),)
    assert lake.sql("DELETE FROM t WHERE id = $1 AND s = $2", [7, "no"]).fetchone() == (0,)
    assert lake.sql("DELETE FROM t WHERE id = $id", {"id": 7}).fetchone() == (1,)
    with pytest.raises(tarndb.UnsupportedError):
        lake.sql("DROP TABLE t", [7])


def test_uuids_as_text_and_as_objects(lake):
    lake.sql("CREATE TABLE t (id UUID, n BIGINT)")
    one, two = uuid.uuid4(), uuid.uuid4()
    lake.sql("INSERT INTO t VALUES ($1, 1)", [str(one)])
    lake.sql(f"INSERT INTO t VALUES ('{two}', 2)")
    assert lake.sql("SELECT id FROM t ORDER BY n").fetchall() == [(one,), (two,)]
    assert lake.sql("SELECT n FROM t WHERE id = $1", [str(two)]).fetchone() == (2,)
    assert lake.table("t").scan(["n"], f"id IN ('{one}')").fetchall() == [(1,)]
    lake.table("t").append(lake.sql("SELECT * FROM t WHERE n = 2"))
    assert lake.table("t").delete(f"id = '{two}'")["rows"] == 2
    lake.sql("CREATE TABLE inside (st STRUCT<u: UUID>, xs LIST<UUID>)")
    lake.sql("INSERT INTO inside SELECT named_struct('u', id), make_array(id, id) FROM t")
    assert lake.sql("SELECT * FROM inside").fetchall() == [({"u": one}, [one, one])]


def test_a_closed_lake_is_not_used(tmp_path):
    with tarndb.connect(tmp_path / "lake") as lake:
        table = lake.create_table("t", [{"a": 1}])
    for call in [lambda: lake.sql("SELECT 1"), lambda: lake.tables(), lambda: lake.drop_table("t"), lambda: table.append([{"a": 2}])]:
        with pytest.raises(tarndb.InvalidInputError, match="closed"):
            call()
    with pytest.raises(tarndb.InvalidInputError, match="no columns"):
        tarndb.connect(tmp_path / "lake").create_table("empty", [])


def test_nanoseconds_are_not_cut(lake):
    moments = pyarrow.table({"t": pyarrow.array([1234567], pyarrow.timestamp("ns"))})
    with pytest.raises(tarndb.InvalidInputError, match="nanoseconds"):
        lake.create_table("t", moments)
    assert lake.tables() == []


def test_what_is_not_offered_yet(lake):
    table = lake.create_table("t", [{"a": 1}])
    for call in [
        lambda: lake.transaction(),
        lambda: table.overwrite([{"a": 2}], where="a = 1"),
        lambda: table.update({"a": "a + 1"}, "a = 1"),
        lambda: lake.create_table("u", [{"a": 1}], sort_by=["a"]),
    ]:
        with pytest.raises(tarndb.UnsupportedError, match="not supported yet"):
            call()
    with pytest.raises(AttributeError, match="nope"):
        table.nope
    assert not hasattr(lake, "nope") and not hasattr(lake, "transaction")
    for wrong in ["ab", b"ab"]:
        with pytest.raises(tarndb.InvalidInputError, match="parameters"):
            lake.sql("SELECT $1", wrong)
    with pytest.raises(tarndb.InvalidInputError, match="garbage"):
        table.expire_snapshots(older_than="garbage")
    for query, params in [("SELECT $1", [1, 2]), ("SELECT $a", {"a": 1, "zz": 2}), ("SELECT 1", [1])]:
        with pytest.raises(tarndb.InvalidInputError, match="parameter"):
            lake.sql(query, params)


def test_namespaces_and_tables(lake):
    lake.create_namespace("sales")
    assert lake.namespaces() == ["default", "sales"]
    lake.create_table("sales.orders", pyarrow.schema([("id", pyarrow.int64())]))
    assert lake.tables() == ["sales.orders"]
    assert lake.tables("default") == []
    lake.drop_table("sales.orders", purge=True)
    assert lake.tables("sales") == []
    with pytest.raises(tarndb.NotFoundError, match="sales.orders"):
        lake.table("sales.orders")
    with pytest.raises(tarndb.AlreadyExistsError):
        lake.create_namespace("sales")


ROWS = {"id": [1, 2, 3], "name": ["a", "b", None]}


@pytest.mark.parametrize(
    "make",
    [
        pyarrow.table,
        lambda rows: pyarrow.RecordBatch.from_pydict(rows),
        lambda rows: pyarrow.table(rows).to_reader(),
        pandas.DataFrame,
        polars.DataFrame,
        lambda rows: pyarrow.table(rows).to_pylist(),
    ],
    ids=["table", "batch", "reader", "pandas", "polars", "dicts"],
)
def test_data_of_every_library(lake, make):
    table = lake.create_table("t", make(ROWS))
    done = table.append(make(ROWS))
    assert done["rows"] == 3 and done["files"] == 1 and done["snapshot_id"] == table.current_snapshot_id
    assert table.scan().arrow().sort_by("id").to_pydict()["id"] == [1, 1, 2, 2, 3, 3]


def test_results_go_back_in(lake):
    lake.create_table("t", pyarrow.table(ROWS))
    copy = lake.create_table("copy", lake.sql("SELECT * FROM t"))
    assert len(copy.scan()) == 3
    assert copy.append(lake.sql("SELECT * FROM t WHERE id > 1"))["rows"] == 2


def test_all_types_come_back_as_python_objects(lake):
    identifier = uuid.UUID(int=5)
    schema = pyarrow.schema(
        [
            ("b", pyarrow.bool_()), ("i", pyarrow.int32()), ("l", pyarrow.int64()), ("f", pyarrow.float32()),
            ("d", pyarrow.float64()), ("p", pyarrow.decimal128(12, 2)), ("day", pyarrow.date32()),
            ("t", pyarrow.time64("us")), ("ts", pyarrow.timestamp("us")), ("tz", pyarrow.timestamp("us", "UTC")),
            ("s", pyarrow.string()), ("u", pyarrow.uuid()), ("fx", pyarrow.binary(4)), ("bin", pyarrow.binary()),
            ("st", pyarrow.struct([("a", pyarrow.int32()), ("m", pyarrow.map_(pyarrow.string(), pyarrow.int32()))])),
            ("xs", pyarrow.list_(pyarrow.int64())), ("m", pyarrow.map_(pyarrow.string(), pyarrow.string())),
        ]
    )
    row = {
        "b": True, "i": -1, "l": 2**40, "f": 0.5, "d": 0.25, "p": decimal.Decimal("-12.34"),
        "day": datetime.date(1969, 12, 31), "t": datetime.time(1, 2, 3, 4), "ts": datetime.datetime(1960, 1, 1, 0, 0, 0, 1),
        "tz": datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc), "s": "ü", "u": identifier.bytes,
        "fx": b"abcd", "bin": b"\x00\xff", "st": {"a": 1, "m": {"k": 2}}, "xs": [1, None], "m": {"x": "y"},
    }
    plain = {**row, "st": {"a": 1, "m": [("k", 2)]}, "m": [("x", "y")]}
    table = lake.create_table("t", schema)
    table.append(pyarrow.Table.from_pylist([plain, {name: None for name in row}], schema=schema))
    first, second = sorted(table.scan().fetchall(), key=lambda row: row[0] is None)
    assert first == tuple({**row, "u": identifier}.values())
    assert second == (None,) * len(row)


def test_table_methods(lake):
    table = lake.create_table("t", pyarrow.table({"id": list(range(10)), "k": [n % 2 for n in range(10)]}), partition_by=["k"])
    first = table.current_snapshot_id
    for _ in range(5):
        table.append([{"id": 100, "k": 1}])
    assert table.delete("id = 100") == {"rows": 5, "removed_data_files": 5, "added_delete_files": 0}
    assert table.delete("id = 3") == {"rows": 1, "removed_data_files": 0, "added_delete_files": 1}
    assert table.scan(columns=["id"], where="id < 5").arrow().sort_by("id")["id"].to_pylist() == [0, 1, 2, 4]
    assert len(table.scan(limit=2)) == 2
    [(path, position)] = table.scan(["_file", "_pos"], "id = 2").fetchall()
    assert path in {file["file_path"] for file in table.files().arrow().to_pylist()} and position == 1
    assert [row[0] for row in table.scan(where=f"_file = '{path}' AND _pos < 2").fetchall()] == [0, 2]
    assert len(table.scan(version=first)) == 10
    assert len(lake.table("t", version="main").scan()) == 9
    assert len(lake.table("t", timestamp=datetime.datetime.now(datetime.timezone.utc)).scan()) == 9
    assert table.schema.names == ["id", "k"]
    assert len(table.snapshots()) == 8 and len(table.history()) == 8 and len(table.files()) == 3
    assert table.refs().fetchone()[0] == "main"
    assert table.properties == {}
    assert table.location.startswith("file:///")
    done = table.rewrite_data_files(rewrite_all=True)
    assert done["rewritten_data_files_count"] == 2 and done["removed_delete_files_count"] == 1
    assert table.expire_snapshots(older_than=datetime.datetime.now(datetime.timezone.utc))["deleted_snapshots_count"] == 8
    assert table.remove_orphan_files() == []
    with pytest.raises(tarndb.InvalidInputError, match="three days"):
        table.remove_orphan_files(older_than=datetime.datetime.now(datetime.timezone.utc))
    assert table.remove_orphan_files(dry_run=False, force=True) != [""]
    assert len(table.scan()) == 9
    with pytest.raises(tarndb.InvalidInputError, match="no option `nope`"):
        table.rewrite_data_files(nope=1)
    with pytest.raises(tarndb.InvalidInputError, match="earlier version"):
        lake.table("t", version="main").append([{"id": 1, "k": 1}])


def test_errors_name_the_thing(lake):
    table = lake.create_table("t", pyarrow.schema([pyarrow.field("id", pyarrow.int32(), nullable=False)]))
    with pytest.raises(tarndb.InvalidInputError, match="`nope`"):
        table.append(pyarrow.table({"nope": [1]}))
    with pytest.raises(tarndb.InvalidInputError, match="`id`.*NOT NULL"):
        table.append(pyarrow.table({"id": pyarrow.array([None], pyarrow.int32())}))
    with pytest.raises(tarndb.InvalidInputError, match="`id`"):
        table.append(pyarrow.table({"id": [2**40]}))
    with pytest.raises(tarndb.InvalidInputError, match="neither Arrow data"):
        table.append(5)
    with pytest.raises(tarndb.UnsupportedError, match="s3"):
        tarndb.connect("s3://bucket/lake")
    assert issubclass(tarndb.NotFoundError, tarndb.Error)
    assert len(table.scan()) == 0 and table.current_snapshot_id is None


def test_a_source_that_fails_changes_nothing(lake):
    table = lake.create_table("t", pyarrow.schema([("id", pyarrow.int64())]))

    def batches():
        yield pyarrow.record_batch({"id": [1, 2]})
        raise ValueError("the source broke")

    with pytest.raises(tarndb.InvalidInputError, match="the source broke"):
        table.append(pyarrow.RecordBatchReader.from_batches(pyarrow.schema([("id", pyarrow.int64())]), batches()))
    assert len(table.scan()) == 0
    assert [name for _, _, names in os.walk(table.location[7:]) for name in names if name.endswith(".parquet")] == []


def test_ctrl_c_cancels():
    code = """
        import os, signal, threading, time, tarndb
        lake = tarndb.connect("memory://")
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        start = time.monotonic()
        try:
            lake.sql("SELECT count(*) FROM generate_series(1, 100000000) a JOIN generate_series(1, 100000) b ON a.value % 7 > b.value").fetchall()
        except KeyboardInterrupt:
            print("cancelled", time.monotonic() - start < 20, lake.sql("SELECT 1").fetchall())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "cancelled True [(1,)]", done.stderr


def test_a_forked_child_gets_an_error(lake):
    lake.sql("SELECT 1").fetchall()
    child = os.fork()
    if child == 0:
        try:
            lake.sql("SELECT 1")
            os._exit(1)
        except tarndb.InvalidInputError:
            os._exit(0)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_threads_share_a_lake(lake):
    table = lake.create_table("t", pyarrow.schema([("id", pyarrow.int64())]))
    threads = [threading.Thread(target=lambda n=n: table.append([{"id": n}])) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row[0] for row in table.scan()) == list(range(8))


@pytest.mark.parametrize("readme", ["../README.md", "../../README.md"])
def test_readme_examples(readme, tmp_path):
    with open(os.path.join(os.path.dirname(__file__), readme)) as file:
        examples = [rest.split("```")[0] for rest in file.read().split("```python\n")[1:]]
    assert examples
    # In a process of its own: extractors are the process's.
    subprocess.run([sys.executable, "-c", "\n".join(examples)], cwd=tmp_path, timeout=120, check=True)


def test_import_is_quick_and_lazy():
    code = "import sys, tarndb; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("i INT", 1.7), ("i INT", 2**40), ("p DECIMAL(5,2)", decimal.Decimal("1.239")), ("f FLOAT", 1e300), ("f FLOAT", 16777217.0),
        ("d DATE", datetime.datetime(2026, 1, 1, 12, 30)), ("ts TIMESTAMP", 5), ("b BOOLEAN", 7), ("b BOOLEAN", "yes"), ("i INT", "1"),
        ("ts TIMESTAMP", datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)), ("tz TIMESTAMPTZ", datetime.datetime(2026, 1, 1)),
    ],
)
def test_values_that_would_change_are_refused(lake, column, value):
    lake.sql(f"CREATE TABLE t ({column})")
    name = column.split()[0]
    with pytest.raises(tarndb.InvalidInputError, match=f"`{name}`"):
        lake.table("t").append([{name: value}])
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(0,)]


def test_values_that_fit_are_taken(lake):
    lake.sql("CREATE TABLE t (i INT, p DECIMAL(5,2), f FLOAT, d DATE)")
    lake.table("t").append([{"i": 3.0, "p": 1.5, "f": 2, "d": datetime.datetime(2026, 1, 1)}])
    assert lake.sql("SELECT i, p, f, d FROM t").fetchall() == [(3, decimal.Decimal("1.50"), 2.0, datetime.date(2026, 1, 1))]


def test_a_column_given_twice_is_refused(lake):
    lake.sql("CREATE TABLE t (id BIGINT)")
    with pytest.raises(tarndb.InvalidInputError, match="`id` is given twice"):
        lake.table("t").append(pyarrow.table([[1], [2]], names=["id", "id"]))


def test_fetchone(lake):
    result = lake.sql("SELECT * FROM (VALUES (1), (2)) AS t(a) ORDER BY a")
    assert [result.fetchone(), result.fetchone(), result.fetchone(), result.fetchone()] == [(1,), (2,), None, None]


def test_a_path_is_a_location(tmp_path):
    with tarndb.connect(tmp_path / "lake") as lake:
        assert lake.sql("SELECT 1").fetchall() == [(1,)]
    assert (tmp_path / "lake" / "catalog.db").exists()


def test_ctrl_c_cancels_what_does_not_yield():
    code = """
        import os, signal, threading
        import tarndb
        join = "SELECT count(*) FROM generate_series(1, 3000000) a JOIN generate_series(1, 3000000) b ON a.value % 7 < b.value % 11"
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            tarndb.connect("memory://").sql(join).fetchall()
        except KeyboardInterrupt:
            os._exit(7)
    """
    # To its end the join would take the better part of an hour.
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], timeout=120, check=False)
    assert done.returncode == 7
