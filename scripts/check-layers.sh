#!/usr/bin/env bash
# Calls go down only: see ARCHITECTURE.md.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0
forbid() { # forbid PACKAGE DEPENDENCY…
  local package=$1; shift
  local tree; tree=$(cargo tree --locked -p "$package" -e normal --prefix none --format '{p}' | cut -d' ' -f1 | sort -u)
  for dependency in "$@"; do
    if grep -qx "$dependency" <<<"$tree"; then echo "$package must not depend on $dependency"; failed=1; fi
  done
}
forbid tarndb-catalog datafusion arrow tarndb-core
forbid tarndb-core pyo3 tarndb-metadata-indexer tarndb
forbid tarndb-metadata-indexer pyo3
if grep -rnE 'crate::(query|lakehouse)\b' core/src/{manifest,table,transaction,scan,writer,maintenance}; then
  echo "these folders of core must not import query or lakehouse"; failed=1
fi
if grep -rnE 'crate::(scan|writer|maintenance)::' core/src/manifest core/src/table; then
  echo "manifest and table must not import the layers above them"; failed=1
fi
exit $failed
