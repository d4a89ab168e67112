"""Planning one file out of very many: a table of MANIFESTS manifests with 1,000 data files each, of which a query for one id
needs one. tarndb, DuckDB and PyIceberg alternate in one run, each in a process of its own; cold is the first query of a
process (what is imported once is, and the disk's cache is warm), warm the median of those that follow. Only the data file that is needed exists.

  python planning.py --folder DIR [--manifests 100] [--columns 4] [--rounds 3] [--without-pyiceberg]
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

ROWS = 10


def make(folder: pathlib.Path, manifests: int, columns: int) -> None:
    import pyarrow
    import pyarrow.parquet
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.conversions import to_bytes
    from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
    from pyiceberg.typedef import Record
    from pyiceberg.types import LongType

    folder.mkdir(parents=True)
    catalog = SqlCatalog("default", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}")
    catalog.create_namespace("default")
    schema = pyarrow.schema([("id", pyarrow.int64())] + [(f"c{n}", pyarrow.int64()) for n in range(1, columns)])
    table = catalog.create_table("default.t", schema)
    data = pathlib.Path(table.location().removeprefix("file://")) / "data"
    data.mkdir(parents=True, exist_ok=True)
    wanted = manifests * 500
    values = {name: pyarrow.array(range(wanted * ROWS, (wanted + 1) * ROWS)) for name in schema.names}
    fields = [field.with_metadata({"PARQUET:field_id": str(n + 1)}) for n, field in enumerate(schema)]
    file = data / f"{wanted}.parquet"
    pyarrow.parquet.write_table(pyarrow.table(values, schema=pyarrow.schema(fields)), file)
    size = file.stat().st_size
    ids = range(1, columns + 1)
    for manifest in range(manifests):
        with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
            for n in range(manifest * 1000, (manifest + 1) * 1000):
                low, high = (to_bytes(LongType(), bound) for bound in (n * ROWS, n * ROWS + ROWS - 1))
                append.append_data_file(DataFile.from_args(
                    content=DataFileContent.DATA, file_path=f"file://{data}/{n}.parquet", file_format=FileFormat.PARQUET,
                    partition=Record(), record_count=ROWS, file_size_in_bytes=size, column_sizes=dict.fromkeys(ids, 100),
                    value_counts=dict.fromkeys(ids, ROWS), null_value_counts=dict.fromkeys(ids, 0), nan_value_counts={},
                    lower_bounds=dict.fromkeys(ids, low), upper_bounds=dict.fromkeys(ids, high), key_metadata=None,
                    split_offsets=[4], equality_ids=None, sort_order_id=None, spec_id=0))
        table = catalog.load_table("default.t")
    (folder / "wanted.json").write_text(json.dumps({"id": wanted * ROWS + 3, "metadata": table.metadata_location}))


TARNDB = """
import tarndb
lake = tarndb.connect(folder)
def query():
    return lake.sql(f"SELECT c1 FROM t WHERE id = {wanted}").fetchall()
lake.sql("SELECT 1").fetchall()
"""
DUCKDB = """
import duckdb, duckdb_extensions
connection = duckdb.connect()
for extension in ("avro", "iceberg"):
    duckdb_extensions.import_extension(extension, con=connection)
    connection.load_extension(extension)
def query():
    return connection.sql(f"SELECT c1 FROM iceberg_scan('{metadata}') WHERE id = {wanted}").fetchall()
connection.sql("SELECT 1").fetchall()
"""
PYICEBERG = """
from pyiceberg.catalog.sql import SqlCatalog
catalog = SqlCatalog("default", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}")
def query():
    found = catalog.load_table("default.t").scan(row_filter=f"id == {wanted}", selected_fields=("c1",)).to_arrow()
    return [(value,) for value in found["c1"].to_pylist()]
"""
RUN = """
import json, resource, sys, time
folder, wanted, metadata, repeats = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
{engine}
times = []
for _ in range(repeats):
    start = time.perf_counter()
    rows = query()
    times.append(time.perf_counter() - start)
    assert rows == [(wanted,)], rows
print(json.dumps({{"times": times, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}}))
"""


def measure(engine: str, folder: pathlib.Path, wanted: int, metadata: str, repeats: int) -> dict:
    command = [sys.executable, "-c", RUN.format(engine=engine), str(folder), str(wanted), metadata, str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--manifests", type=int, default=100)
    arguments.add_argument("--columns", type=int, default=4)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--folder", type=pathlib.Path, required=True)
    arguments.add_argument("--without-pyiceberg", action="store_true")
    options = arguments.parse_args()
    folder = (options.folder / f"planning-{options.manifests}-{options.columns}").resolve()
    if not (folder / "wanted.json").exists():
        start = time.perf_counter()
        make(folder, options.manifests, options.columns)
        print(f"made {options.manifests} manifests in {time.perf_counter() - start:.0f} s", flush=True)
    wanted = json.loads((folder / "wanted.json").read_text())
    engines = {"tarndb": (TARNDB, 20), "DuckDB": (DUCKDB, 5)}
    if not options.without_pyiceberg:
        engines["PyIceberg"] = (PYICEBERG, 2)
    results: dict[str, list[dict]] = {name: [] for name in engines}
    for _ in range(options.rounds):
        for name, (engine, repeats) in engines.items():
            results[name].append(measure(engine, folder, wanted["id"], wanted["metadata"], repeats))
    print(f"| {options.manifests * 1000:,} files of {options.columns} columns, one wanted | cold, ms | warm, ms | peak, MiB | cold, of tarndb | warm, of tarndb |")
    print("|---|---|---|---|---|---|")
    rows = {}
    for name, runs in results.items():
        cold = statistics.median(run["times"][0] for run in runs) * 1000
        warm = statistics.median(time for run in runs for time in run["times"][1:]) * 1000
        rows[name] = (cold, warm, max(run["peak"] for run in runs))
    for name, (cold, warm, peak) in rows.items():
        ours = rows["tarndb"]
        print(f"| {name} | {cold:.1f} | {warm:.2f} | {peak:.0f} | {cold / ours[0]:.1f} | {warm / ours[1]:.1f} |")


if __name__ == "__main__":
    main()
