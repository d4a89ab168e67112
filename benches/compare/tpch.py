"""TPC-H on the same Iceberg tables in tarndb and in DuckDB, and in the same build of tarndb over the same Parquet files.

Alternating, medians of 5, answers compared. Prints times and ratios; the ratios are what counts.
"""

import argparse
import decimal
import math
import pathlib
import shutil
import statistics
import subprocess
import time

import duckdb
import duckdb_extensions

import tarndb

TABLES = ["region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem"]


def queries() -> dict[int, str]:
    text = (pathlib.Path(__file__).parent / "tpch.sql").read_text()
    parts = text.split("\n-- ")[1:]
    return {int(part.split("\n", 1)[0]): part.split("\n", 1)[1].strip().rstrip(";") for part in parts}


def same(ours: list[tuple], theirs: list[tuple]) -> bool:
    """Numbers are compared by value: an average is a decimal of few digits here and a double there."""

    def key(row: tuple) -> tuple:
        return tuple(f"{float(cell):.3e}" if isinstance(cell, (float, decimal.Decimal)) else str(cell) for cell in row)

    def equal(mine, peer) -> bool:
        if isinstance(mine, (float, decimal.Decimal)) and isinstance(peer, (float, decimal.Decimal)):
            digits = [-int(cell.as_tuple().exponent) for cell in (mine, peer) if isinstance(cell, decimal.Decimal)]
            return math.isclose(float(mine), float(peer), rel_tol=1e-9, abs_tol=10.0 ** -min(digits, default=300))
        return str(mine) == str(peer)

    if len(ours) != len(theirs):
        return False
    pairs = zip(sorted(ours, key=key), sorted(theirs, key=key))
    return all(len(mine) == len(peer) and all(map(equal, mine, peer)) for mine, peer in pairs)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tpchgen", required=True)
    parser.add_argument("--scale", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of both tarndb engines")
    arguments = parser.parse_args()
    folder = pathlib.Path(arguments.folder).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [arguments.tpchgen, "parquet", "-s", arguments.scale, "--output-dir", str(folder / "data")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    settings = dict(each.split("=", 1) for each in arguments.set)
    lake = tarndb.connect(str(folder / "lake"), settings=settings)
    plain = tarndb.connect("memory://", settings=settings)
    peer = duckdb.connect()
    for extension in ("avro", "iceberg"):
        duckdb_extensions.import_extension(extension, con=peer)
        peer.load_extension(extension)
    replacements = {}
    for table in TABLES:
        lake.sql(f"CREATE TABLE {table} AS SELECT * FROM read_parquet('{folder}/data/{table}.parquet')")
        files = [path[len("file://"):] for path, in lake.sql(f'SELECT file_path FROM "{table}$files"').fetchall()]
        replacements[table] = "read_parquet(" + ", ".join(f"'{file}'" for file in files) + ")"
        metadata = lake.table(table).metadata_location
        peer.sql(f"CREATE VIEW {table} AS SELECT * FROM iceberg_scan('{metadata}')")

    def over_files(query: str) -> str:
        names = ", ".join(f"{table} AS (SELECT * FROM {replacements[table]})" for table in TABLES if table in query)
        return f"WITH {names}, " + query[len("with "):] if query.lower().startswith("with ") else f"WITH {names} {query}"

    print(f"TPC-H at scale factor {arguments.scale}, seconds, medians of {arguments.runs}")
    print(f"{'query':>5} {'tarndb':>8} {'parquet':>8} {'duckdb':>8} {'/parquet':>9} {'/duckdb':>9}")
    totals = [0.0, 0.0, 0.0]
    ratios: list[tuple[float, float]] = []
    for number, query in queries().items():
        engines = [
            lambda: lake.sql(query).fetchall(),
            lambda: plain.sql(over_files(query)).fetchall(),
            lambda: peer.sql(query).fetchall(),
        ]
        times: list[list[float]] = [[], [], []]
        answers = [None, None, None]
        for _ in range(arguments.runs + 1):
            for index, engine in enumerate(engines):
                start = time.perf_counter()
                answers[index] = engine()
                times[index].append(time.perf_counter() - start)
        medians = [statistics.median(each[1:]) for each in times]  # the first run warms up
        for index, name in [(1, "parquet"), (2, "duckdb")]:
            if not same(answers[0], answers[index]):
                raise SystemExit(f"query {number}: tarndb and {name} differ:\n{answers[0][:3]}\n{answers[index][:3]}")
        ratios.append((medians[0] / medians[1], medians[0] / medians[2]))
        totals = [total + median for total, median in zip(totals, medians)]
        print(f"{number:>5} {medians[0]:8.3f} {medians[1]:8.3f} {medians[2]:8.3f} {ratios[-1][0]:9.2f} {ratios[-1][1]:9.2f}", flush=True)
    means = [math.exp(statistics.mean(math.log(ratio[index]) for ratio in ratios)) for index in (0, 1)]
    print(f"total {totals[0]:8.3f} {totals[1]:8.3f} {totals[2]:8.3f} {totals[0] / totals[1]:9.2f} {totals[0] / totals[2]:9.2f}")
    print(f"geometric mean of the ratios {means[0]:24.2f} {means[1]:9.2f}")


if __name__ == "__main__":
    main()
