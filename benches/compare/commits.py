"""Durable append commits a second, at the first commits, after 1,000 and after 5,000, beside PyIceberg (which does not sync).

Both append one row a commit to a table of their own, alternating, in one run.
"""

import argparse
import pathlib
import shutil
import time

import pyarrow
from pyiceberg.catalog.sql import SqlCatalog

import tarndb

SAMPLE = 50


def rate(append, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        append()
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--at", type=int, nargs="*", default=[1, 1000, 5000])
    arguments = parser.parse_args()
    folder = pathlib.Path(arguments.folder).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    schema = pyarrow.schema([("id", pyarrow.int64())])
    row = pyarrow.table({"id": [1]})
    ours = tarndb.connect(str(folder / "tarndb")).create_table("t", schema)
    (folder / "pyiceberg").mkdir()
    catalog = SqlCatalog("default", uri=f"sqlite:///{folder}/pyiceberg/catalog.db", warehouse=f"file://{folder}/pyiceberg")
    catalog.create_namespace("default")
    theirs = catalog.create_table("default.t", schema)
    done = 0
    print(f"append commits a second over {SAMPLE} commits")
    print(f"{'at':>6} {'tarndb (synced)':>16} {'PyIceberg':>10} {'ratio':>6}")
    for at in arguments.at:
        while done + 1 < at:
            ours.append(row)
            done += 1
        mine = rate(lambda: ours.append(row), SAMPLE)
        done += SAMPLE
        # PyIceberg's rate falls with the number of commits; it is measured young, which favours it.
        peer = rate(lambda: theirs.append(row), SAMPLE if at == 1 else 10)
        print(f"{at:>6} {mine:16.1f} {peer:10.1f} {mine / peer:6.1f}", flush=True)


if __name__ == "__main__":
    main()
