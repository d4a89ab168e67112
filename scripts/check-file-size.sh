#!/usr/bin/env bash
# A file stays under 500 lines, its tests not counted.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0
while read -r file; do
  lines=$(awk '/^#\[cfg\(test\)\]/ {exit} {count++} END {print count + 0}' "$file")
  if [ "$lines" -gt 500 ]; then echo "$file has $lines lines"; failed=1; fi
done < <(git ls-files '*.rs' | grep -v '/tests/')
exit $failed
