"""Metadata indexes of folders, and their tables as others read them."""

import random
import signal
import subprocess
import sys
import time

import pytest
from pyiceberg.catalog.sql import SqlCatalog

import tarndb
from test_interop import duckdb_table


def inventory(lake: tarndb.Lakehouse) -> dict[str, int]:
    return dict(lake.sql("SELECT key, size FROM docs.inventory").fetchall())


def wait_for(lake: tarndb.Lakehouse, wanted: dict[str, int]) -> None:
    end = time.monotonic() + 60
    while inventory(lake) != wanted:
        assert time.monotonic() < end, inventory(lake)
        time.sleep(0.01)


def test_a_folder_is_followed_and_read_by_others(tmp_path):
    docs = tmp_path / "docs"
    (docs / "img").mkdir(parents=True)
    (docs / "img" / "a.png").write_bytes(b"123")
    with tarndb.connect(tmp_path / "lake") as lake:
        index = lake.create_metadata_index("docs", str(docs))
        assert inventory(lake) == {"img/a.png": 3}
        for number in range(30):
            (docs / f"{number}.txt").write_text("x" * number)
        sizes = {"img/a.png": 3, **{f"{number}.txt": number for number in range(30)}}
        wait_for(lake, sizes)
        (docs / "img").rename(docs / "pictures")
        for number in range(0, 30, 2):
            (docs / f"{number}.txt").unlink()
            del sizes[f"{number}.txt"]
        sizes["pictures/a.png"] = sizes.pop("img/a.png")
        wait_for(lake, sizes)
        assert index.status()["state"] == "Active" and index.status()["objects"] == len(sizes)
        index.stop()
        assert index.status()["state"] == "Stopped" and index.status()["last_error"] is None
        (docs / "late").write_text("")
        assert index.sync() == {"created": 1, "overwritten": 0, "deleted": 0}
        assert index.reconcile() == {"created": 0, "overwritten": 0, "deleted": 0}
        sizes["late"] = 0
        catalog = SqlCatalog("default", uri=f"sqlite:///{tmp_path}/lake/catalog.db")
        for table in ["docs.journal", "docs.inventory"]:
            ours = lake.table(table).scan().arrow().to_pylist()
            order = lambda row: (row["sequence_number"], row["key"])
            plain = lambda rows: [{name: row[name] for name in ours[0]} for row in sorted(rows, key=order)]
            assert plain(catalog.load_table(table).scan().to_arrow().to_pylist()) == plain(ours)
            assert plain(duckdb_table(lake.table(table).metadata_location).to_pylist()) == plain(ours)
        assert {row["key"]: row["size"] for row in ours} == sizes


FOLLOWER = """
import sys, time, tarndb
lake = tarndb.connect(sys.argv[1])
lake.metadata_index("docs").start()
print("started", flush=True)
time.sleep(600)
"""


def test_a_folder_is_followed_by_processes_that_are_killed(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    with tarndb.connect(tmp_path / "lake") as lake:
        lake.create_metadata_index("docs", str(docs)).stop()
    seed = random.randrange(2**32)
    print("seed", seed)
    choose, size = random.Random(seed), 0
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", FOLLOWER, str(tmp_path / "lake")], stdout=subprocess.PIPE)
        try:
            assert process.stdout.readline() == b"started\n"
            for _ in range(choose.randrange(20, 200)):
                path = docs / f"{choose.randrange(60)}"
                if choose.random() < 0.3:
                    path.unlink(missing_ok=True)
                else:
                    size += 1
                    path.write_text("x" * size)
            # It is killed while it looks at them.
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(choose.random() * 0.3)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    with tarndb.connect(tmp_path / "lake") as lake:
        index = lake.metadata_index("docs")
        index.start()
        wait_for(lake, {path.name: path.stat().st_size for path in docs.iterdir()})
        index.stop()
        assert index.reconcile() == {"created": 0, "overwritten": 0, "deleted": 0}
        # Of each file, what is there is overwritten or deleted, and what is gone is created; a content is there once.
        changes = "SELECT key, record_type, size FROM docs.journal ORDER BY key, sequence_number"
        live, seen = {}, set()
        for key, kind, size in lake.sql(changes).fetchall():
            assert (kind == "DELETE") == (size is None) and (kind != "DELETE" or key in live), (key, kind, size)
            assert size is None or (key, size) not in seen
            seen.add((key, size) if size is not None else None)
            if kind == "DELETE":
                del live[key]
            else:
                live[key] = size
        assert live == inventory(lake)


def test_what_is_not_offered(tmp_path):
    with tarndb.connect(tmp_path / "lake") as lake:
        with pytest.raises(tarndb.NotFoundError):
            lake.metadata_index("docs")
        with pytest.raises(tarndb.UnsupportedError):
            lake.create_metadata_index("docs", "ftp://host/folder")
        with pytest.raises(tarndb.UnsupportedError):
            lake.create_metadata_index("docs", str(tmp_path), events="sqs://queue")
        (tmp_path / "docs").mkdir()
        index = lake.create_metadata_index("docs", str(tmp_path / "docs"))
        with pytest.raises(tarndb.UnsupportedError):
            index.push("{}")
