#!/usr/bin/env bash
# Makes the corpus of foreign tables anew: core/tests/corpus/tables.tar.zst, a folder for each table with the table itself and
# what its writer reads from it (expected.parquet). The tests read the archive; nobody needs Spark to run them.
#   ICEBERG_SPARK_PYTHON  a Python with pyspark 3.5, pyarrow and pyiceberg
#   ICEBERG_SPARK_JARS    the jars of iceberg-spark-runtime-3.5, comma-separated
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# Not where the tests will find the tables: they are to find their files in folders that were moved.
root=${TMPDIR:-/tmp}/tarndb-corpus
rm -rf "$root" && mkdir -p "$root/states"
"$ICEBERG_SPARK_PYTHON" "$here/spark_tables.py" "$root"
"$ICEBERG_SPARK_PYTHON" "$here/pyiceberg_tables.py" "$root"
# Two releases of DuckDB, for what the older one wrote is still there.
for release in 1.5.5 1.5.3; do
  python3 -m venv "$root/duckdb-$release"
  "$root/duckdb-$release/bin/pip" install -q "duckdb==$release" duckdb-extension-{avro,httpfs,iceberg}"==$release" duckdb-extensions
  "$root/duckdb-$release/bin/python" "$here/duckdb_tables.py" "$root"
done
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$root/states" -cf - . | zstd -q -19 --long=27 -f -o "$here/tables.tar.zst"
ls "$root/states" | wc -l
