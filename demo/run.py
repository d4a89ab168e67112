"""The main job of tarndb on TPC-H data, step by step: load, query, delete, compact, vacuum, and read from elsewhere.

Called by `make demo`, which builds the shell and the wheel and passes them in.
"""

import argparse
import csv
import io
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import time
import zlib

QUERIES = {
    "Q1": """SELECT l_returnflag, l_linestatus, sum(l_quantity) AS sum_qty, sum(l_extendedprice) AS sum_base_price,
       sum(l_extendedprice * (1 - l_discount)) AS sum_disc_price, avg(l_discount) AS avg_disc, count(*) AS count_order
FROM lineitem WHERE l_shipdate <= DATE '1998-12-01' - INTERVAL '90' DAY
GROUP BY l_returnflag, l_linestatus ORDER BY l_returnflag, l_linestatus""",
    "Q3": """SELECT l_orderkey, sum(l_extendedprice * (1 - l_discount)) AS revenue, o_orderdate, o_shippriority
FROM customer, orders, lineitem
WHERE c_mktsegment = 'BUILDING' AND c_custkey = o_custkey AND l_orderkey = o_orderkey
  AND o_orderdate < DATE '1995-03-15' AND l_shipdate > DATE '1995-03-15'
GROUP BY l_orderkey, o_orderdate, o_shippriority ORDER BY revenue DESC, o_orderdate LIMIT 10""",
    "Q6": """SELECT sum(l_extendedprice * l_discount) AS revenue FROM lineitem
WHERE l_shipdate >= DATE '1994-01-01' AND l_shipdate < DATE '1995-01-01'
  AND l_discount BETWEEN 0.05 AND 0.07 AND l_quantity < 24""",
    "Q18": """SELECT c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice, sum(l_quantity) AS quantity
FROM customer, orders, lineitem
WHERE o_orderkey IN (SELECT l_orderkey FROM lineitem GROUP BY l_orderkey HAVING sum(l_quantity) > 300)
  AND c_custkey = o_custkey AND o_orderkey = l_orderkey
GROUP BY c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice ORDER BY o_totalprice DESC, o_orderdate LIMIT 10""",
}
CHECK = "SELECT count(*) AS n, sum(l_orderkey) AS keys, sum(l_extendedprice) AS price FROM lineitem"
TABLES = ["region", "nation", "supplier", "customer", "part", "partsupp", "orders"]
PARTS = 50


def title(text: str) -> None:
    print(f"\n=== {text}", flush=True)


class Shell:
    def __init__(self, binary: str, lake: pathlib.Path) -> None:
        self.binary, self.lake = binary, lake

    def run(self, sql: str, *, show: bool = True, form: str = "table") -> str:
        if show:
            print(f"\n$ tarndb {self.lake.name} -c \"{sql}\"", flush=True)
        start = time.monotonic()
        done = subprocess.run(
            [self.binary, str(self.lake), "--format", form, "-c", sql], text=True, capture_output=True, check=False
        )
        if done.returncode != 0:
            sys.exit(f"demo: the statement failed: {sql}\n{done.stderr}")
        if show:
            print(done.stdout.rstrip(), flush=True)
            print(f"({time.monotonic() - start:.2f} s)", flush=True)
        return done.stdout

    def rows(self, sql: str) -> list[list[str]]:
        return list(csv.reader(io.StringIO(self.run(sql, show=False, form="csv"))))[1:]


def python_part(python: str, code: str, lake: pathlib.Path) -> str:
    print("\n$ python\n" + "\n".join(f">>> {line}" for line in code.strip().splitlines()), flush=True)
    start = time.monotonic()
    done = subprocess.run([python, "-c", code], text=True, capture_output=True, cwd=lake.parent, check=False)
    if done.returncode != 0:
        sys.exit(f"demo: python failed\n{done.stderr}")
    print(done.stdout.rstrip())
    print(f"({time.monotonic() - start:.2f} s)", flush=True)
    return done.stdout.strip().splitlines()[-1]


def picture(width: int, height: int) -> bytes:
    """A PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(width + 1) * height))
    return b"\x89PNG\r\n\x1a\n" + header + rows + chunk(b"IEND", b"")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shell", required=True)
    parser.add_argument("--python", required=True, help="an environment with the wheel, pyiceberg and duckdb")
    parser.add_argument("--tpchgen", required=True)
    parser.add_argument("--scale", required=True)
    parser.add_argument("--folder", required=True)
    arguments = parser.parse_args()
    folder = pathlib.Path(arguments.folder).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    data, lake = folder / "data", folder / "lake"
    data.mkdir(parents=True)

    title(f"1. TPC-H data at scale factor {arguments.scale}, and a lake in a folder")
    generate = [arguments.tpchgen, "parquet", "-s", arguments.scale, "--output-dir", str(data)]
    subprocess.run([*generate, "--tables", ",".join(TABLES)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*generate, "--tables", "lineitem", "--parts", str(PARTS)], check=True, stdout=subprocess.DEVNULL)
    shell = Shell(arguments.shell, lake)
    shell.run("SHOW NAMESPACES")

    title(f"2. Eight Iceberg tables; lineitem by month, in {PARTS} commits")
    for table in TABLES:
        shell.run(f"CREATE TABLE {table} AS SELECT * FROM read_parquet('{data}/{table}.parquet')")
    source = f"read_parquet('{data}/lineitem/lineitem.%d.parquet')"
    parts = sorted(int(path.name.split(".")[1]) for path in (data / "lineitem").iterdir())
    shell.run(f"CREATE TABLE lineitem PARTITIONED BY (month(l_shipdate)) AS SELECT * FROM {source % parts[0]}")
    statements = [f"INSERT INTO lineitem SELECT * FROM {source % part};" for part in parts[1:]]
    script = folder / "load.sql"
    script.write_text("\n".join(statements))
    print(f"\n$ tarndb lake -f load.sql    # {len(statements)} times INSERT INTO lineitem SELECT * FROM read_parquet(…)", flush=True)
    start = time.monotonic()
    subprocess.run([arguments.shell, str(lake), "-f", str(script)], check=True, stdout=subprocess.DEVNULL)
    print(f"({time.monotonic() - start:.2f} s)", flush=True)
    shell.run("SELECT content, count(*) AS files, sum(record_count) AS rows FROM \"lineitem$files\" GROUP BY content")

    title("3. Queries, time travel, metadata")
    for name, query in QUERIES.items():
        print(f"\n-- TPC-H {name}")
        shell.run(query)
    first = shell.rows('SELECT snapshot_id FROM "lineitem$snapshots" ORDER BY committed_at LIMIT 1')[0][0]
    shell.run(f"SELECT count(*) AS rows_at_first FROM lineitem FOR VERSION AS OF {first}")
    shell.run("SELECT count(*) AS snapshots, min(committed_at) AS first, max(committed_at) AS last FROM \"lineitem$snapshots\"")
    shell.run("SELECT partition, file_count, record_count FROM \"lineitem$partitions\" ORDER BY partition LIMIT 3")

    title("4. Delete, compact, vacuum: the same answer after each")
    shell.run("DELETE FROM lineitem WHERE l_orderkey % 10 = 3")
    shell.run(CHECK)
    answer = shell.rows(CHECK)
    for statement in ["OPTIMIZE lineitem", "VACUUM lineitem RETAIN 0 HOURS"]:
        shell.run(statement)
        shell.run("SELECT content, count(*) AS files, sum(record_count) AS rows FROM \"lineitem$files\" GROUP BY content")
        shell.run(CHECK)
        if shell.rows(CHECK) != answer:
            sys.exit(f"demo: the answer changed after {statement}")
    shell.run("SELECT count(*) AS snapshots FROM \"lineitem$snapshots\"")
    on_disk = sum(1 for path in lake.glob("default/lineitem-*/data/**/*.parquet"))
    listed = int(shell.rows('SELECT count(*) FROM "lineitem$files"')[0][0])
    print(f"\nParquet files of lineitem on disk: {on_disk}, in the table: {listed}")
    if on_disk != listed:
        sys.exit("demo: files of expired snapshots are left")

    title("5. The same rows from Python, PyIceberg and DuckDB")
    expected = answer[0][0] + " " + answer[0][1]
    tarndb = python_part(arguments.python, """
import tarndb
lake = tarndb.connect("./lake")
n, keys, _ = lake.sql("SELECT count(*), sum(l_orderkey), 0 FROM lineitem").fetchone()
print(n, keys)
""", lake)
    pyiceberg = python_part(arguments.python, """
from pyiceberg.catalog.sql import SqlCatalog
catalog = SqlCatalog("default", uri="sqlite:///lake/catalog.db")
rows = catalog.load_table("default.lineitem").scan(selected_fields=("l_orderkey",)).to_arrow()
print(rows.num_rows, sum(rows["l_orderkey"].to_pylist()))
""", lake)
    duckdb = python_part(arguments.python, """
import tarndb, duckdb, duckdb_extensions
connection = duckdb.connect()
for extension in ("avro", "iceberg"):
    duckdb_extensions.import_extension(extension, con=connection)
    connection.load_extension(extension)
metadata = tarndb.connect("./lake").table("lineitem").metadata_location
print(*connection.sql(f"SELECT count(*), sum(l_orderkey) FROM iceberg_scan('{metadata}')").fetchone())
""", lake)
    for name, found in [("tarndb", tarndb), ("PyIceberg", pyiceberg), ("DuckDB", duckdb)]:
        if found != expected:
            sys.exit(f"demo: {name} says {found}, expected {expected}")

    title("6. A metadata index: the files of a folder as tables that follow it")
    docs = folder / "docs"
    (docs / "img").mkdir(parents=True)
    for number in range(3):
        (docs / "img" / f"{number}.png").write_bytes(picture(200 * number + 100, 100))
    shell.run(f"CREATE METADATA INDEX docs ON '{docs}' WITH (extract = 'media,text')")
    shell.run("SELECT key, size FROM docs.inventory WHERE key LIKE 'img/%' ORDER BY key")
    followed = python_part(arguments.python, """
import os, time, tarndb
lake = tarndb.connect("./lake")
index = lake.metadata_index("docs")
index.start()
os.rename("docs/img/1.png", "docs/img/one.png")
os.remove("docs/img/2.png")
written = open("docs/new.txt", "w").write("a dog and a cat\\n")
start = time.monotonic()
while index.status()["changes"] < 4 and time.monotonic() < start + 60: time.sleep(0.01)

print(f"four changes were in the tables after {time.monotonic() - start:.2f} s")
index.sync()

@tarndb.extractor
def cat(content):
    return b"cat" in content.read()

lake.create_metadata_index("pets", "docs", extract=["cat"]).sync()
cats = lake.sql("SELECT key FROM pets.annotations WHERE attributes['cat'] = 'true'").fetchall()
assert cats == [("new.txt",)], cats
print("a function of Python found a cat in", cats[0][0])
lake.sql("DROP METADATA INDEX pets")
lake.close()
print(*[key for key, in tarndb.connect("./lake").sql("SELECT key FROM docs.inventory ORDER BY key").fetchall()])
""", lake)
    shell.run("SELECT key, record_type, size FROM docs.journal ORDER BY sequence_number")
    shell.run("SELECT key, media_type, image_width, image_height, text_lines FROM docs.annotations ORDER BY key")
    shell.run("SHOW METADATA INDEXES")
    if followed != "img/0.png img/one.png new.txt":
        sys.exit(f"demo: the inventory has {followed}")
    print("\nThe demo is done: all three agree.", flush=True)
    if not os.environ.get("KEEP"):
        shutil.rmtree(data)


if __name__ == "__main__":
    main()
