"""Scans of a table of ROWS rows of which 1, 10 and 50 % are deleted, by position deletes (format version 2), deletion vectors
(version 3) and equality deletes: time beside the same table without deletes, and beside DuckDB on the same files. tarndb and
DuckDB alternate in one run, each in a process of its own; medians of the warm queries. Answers are compared; DuckDB 1.5.5
counts dense deletion vectors wrongly, which is shown and not hidden.

  python deletes.py --folder DIR [--rows 6000000] [--rounds 3]
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys

import pyarrow
import pyarrow.compute
import pyarrow.parquet

import tarndb

SHARES = (1, 10, 50)
# DuckDB compares every row with every equality delete, one by one.
PATIENCE_S = 60


def equality_deletes(folder: pathlib.Path, keys: pyarrow.Array) -> None:
    """Commits an equality delete file, which no Python library offers to write: the manifest is PyIceberg's."""
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestContent, ManifestEntry, ManifestEntryStatus, ManifestWriterV2
    from pyiceberg.typedef import Record

    class DeleteManifestWriter(ManifestWriterV2):
        def content(self) -> ManifestContent:
            return ManifestContent.DELETES

        @property
        def _meta(self):
            return {**super()._meta, "content": "deletes"}

    table = SqlCatalog("default", uri=f"sqlite:///{folder}/catalog.db").load_table("default.t")
    path = pathlib.Path(table.location().removeprefix("file://")) / "data" / "equality.parquet"
    schema = pyarrow.schema([pyarrow.field("id", pyarrow.int64(), metadata={"PARQUET:field_id": "1"})])
    pyarrow.parquet.write_table(pyarrow.table([keys], schema=schema), path)
    with table.transaction() as transaction:
        append = transaction.update_snapshot().fast_append()
        existing = append._existing_manifests
        file = DataFile.from_args(
            content=DataFileContent.EQUALITY_DELETES, file_path=f"file://{path}", file_format=FileFormat.PARQUET, partition=Record(),
            record_count=len(keys), file_size_in_bytes=path.stat().st_size, column_sizes={}, value_counts={}, null_value_counts={},
            nan_value_counts={}, lower_bounds={}, upper_bounds={}, key_metadata=None, split_offsets=None, equality_ids=[1],
            sort_order_id=None, spec_id=0)
        location = table.io.new_output(f"{table.location()}/metadata/equality-m0.avro")
        with DeleteManifestWriter(table.spec(), table.schema(), location, append._snapshot_id, "deflate") as writer:
            writer.add_entry(ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=append._snapshot_id,
                                                     sequence_number=None, file_sequence_number=None, data_file=file))
        append._existing_manifests = lambda: [writer.to_manifest_file(), *existing()]
        append.commit()


def make(folder: pathlib.Path, rows: int, kind: str, share: int) -> str:
    shutil.rmtree(folder, ignore_errors=True)
    lake = tarndb.connect(str(folder))
    version = "3" if kind == "vectors" else "2"
    lake.sql(f"CREATE TABLE t (id BIGINT, a BIGINT, b DOUBLE, s STRING) TBLPROPERTIES ('format-version' = '{version}')")
    for part in range(4):
        first, last = part * rows // 4, (part + 1) * rows // 4 - 1
        lake.sql(f"INSERT INTO t SELECT value, value * 7919 % 1000003, value / 8.0, 'text ' || (value % 1000) FROM generate_series({first}, {last})")
    # Scattered rows: the worst that deletes can be for a reader.
    condition = f"a % 100 < {share}"
    if kind in ("positions", "vectors"):
        lake.sql(f"DELETE FROM t WHERE {condition}")
    elif kind == "equality":
        equality_deletes(folder, lake.sql(f"SELECT id FROM t WHERE {condition}").arrow()["id"].combine_chunks())
        lake.close()
        lake = tarndb.connect(str(folder))
    return lake.table("t").metadata_location


QUERY = "SELECT count(*), sum(a), max(b), count(DISTINCT s) FROM {table}"
ENGINES = {
    "tarndb": """
import tarndb
lake = tarndb.connect(folder)
def query():
    return [tuple(row) for row in lake.sql(sql.format(table="t")).fetchall()]
""",
    "DuckDB": """
import duckdb, duckdb_extensions
connection = duckdb.connect()
for extension in ("avro", "iceberg"):
    duckdb_extensions.import_extension(extension, con=connection)
    connection.load_extension(extension)
def query():
    return connection.sql(sql.format(table=f"iceberg_scan('{metadata}')")).fetchall()
""",
}
RUN = """
import json, sys, time
folder, metadata, sql = sys.argv[1:4]
{engine}
times = []
for _ in range(4):
    start = time.perf_counter()
    rows = query()
    times.append(time.perf_counter() - start)
print(json.dumps({{"times": times[1:], "rows": [[str(value) for value in row] for row in rows]}}))
"""


def measure(engine: str, folder: pathlib.Path, metadata: str) -> dict:
    command = [sys.executable, "-c", RUN.format(engine=ENGINES[engine]), str(folder), metadata, QUERY]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return {"times": [float("inf")], "rows": "not within the time"}
    if done.returncode < 0:
        # DuckDB's equality deletes take more memory than the machine has.
        return {"times": [float("inf")], "rows": f"ended by signal {-done.returncode}"}
    if done.returncode != 0:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--folder", type=pathlib.Path, required=True)
    arguments.add_argument("--rows", type=int, default=6_000_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--only", nargs="*", metavar="KIND-SHARE", help="some of the cases, such as equality-50")
    options = arguments.parse_args()
    cases = [("none", 0)] + [(kind, share) for kind in ("positions", "vectors", "equality") for share in SHARES]
    print(f"| {options.rows:,} rows, deleted | tarndb, ms | of the table without deletes | DuckDB, ms | tarndb of DuckDB | equal |")
    print("|---|---|---|---|---|---|")
    baseline = None
    for kind, share in cases:
        if options.only and f"{kind}-{share}" not in (*options.only, "none-0"):
            continue
        folder = (options.folder / f"deletes-{kind}-{share}").resolve()
        metadata = make(folder, options.rows, kind, share)
        runs: dict[str, list[dict]] = {name: [] for name in ENGINES}
        for _ in range(options.rounds):
            for name in ENGINES:
                # Who did not end in time once is not asked again.
                if not any(run["times"] == [float("inf")] for run in runs[name]):
                    runs[name].append(measure(name, folder, metadata))
        times = {name: statistics.median(time for run in of for time in run["times"]) * 1000 for name, of in runs.items()}
        baseline = baseline or times["tarndb"]
        equal = "yes" if runs["tarndb"][0]["rows"] == runs["DuckDB"][0]["rows"] else f"no: {runs['tarndb'][0]['rows']} {runs['DuckDB'][0]['rows']}"
        label = "nothing" if kind == "none" else f"{share} % by {kind}"
        print(f"| {label} | {times['tarndb']:.0f} | {times['tarndb'] / baseline:.2f} | {times['DuckDB']:.0f} "
              f"| {times['tarndb'] / times['DuckDB']:.2f} | {equal} |", flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
