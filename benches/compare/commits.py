"""Durable append commits a second, at the first commits, after 1,000 and after 5,000, beside PyIceberg (which does not sync).

Both append one row a commit. At each mark PyIceberg takes up the table as it is then, in a catalog of its own, so that
both commit to the same number of snapshots and files; they alternate, in one run.
"""

import argparse
import pathlib
import shutil
import statistics
import time

import pyarrow
from pyiceberg.catalog.sql import SqlCatalog

import tarndb

ROUNDS = 3
OUR_COMMITS = 20
# PyIceberg takes seconds for one commit to a table of thousands of snapshots.
THEIR_COMMITS = 2


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
    (folder / "pyiceberg").mkdir(parents=True)
    row = pyarrow.table({"id": [1]})
    ours = tarndb.connect(str(folder / "tarndb")).create_table("t", row.schema)
    catalog = SqlCatalog("default", uri=f"sqlite:///{folder}/pyiceberg/catalog.db", warehouse=f"file://{folder}/pyiceberg")
    catalog.create_namespace("default")
    done = 0
    print(f"append commits a second, medians of {ROUNDS} rounds of {OUR_COMMITS} and {THEIR_COMMITS}")
    print(f"{'at':>6} {'tarndb (synced)':>16} {'PyIceberg':>10} {'ratio':>6}")
    for at in arguments.at:
        while done + 1 < at:
            ours.append(row)
            done += 1
        theirs = catalog.register_table(f"default.at_{at}", ours.metadata_location)
        mine, peer = [], []
        for _ in range(ROUNDS):
            mine.append(rate(lambda: ours.append(row), OUR_COMMITS))
            peer.append(rate(lambda: theirs.append(row), THEIR_COMMITS))
            done += OUR_COMMITS
        mine, peer = statistics.median(mine), statistics.median(peer)
        print(f"{at:>6} {mine:16.1f} {peer:10.1f} {mine / peer:6.1f}", flush=True)


if __name__ == "__main__":
    main()
