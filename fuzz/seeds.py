"""Sorts the files of the corpus of foreign tables into seeds for each fuzz target: `seeds.py STATES FOLDER`."""

import gzip
import hashlib
import json
import sys
from pathlib import Path

states, folder = Path(sys.argv[1]), Path(sys.argv[2])


def seed(target: str, content: bytes) -> None:
    into = folder / target
    into.mkdir(parents=True, exist_ok=True)
    # As libFuzzer names what it finds.
    (into / hashlib.sha1(content).hexdigest()).write_bytes(content)


def blobs(puffin: bytes) -> list[bytes]:
    """The blobs of a Puffin file whose footer is not compressed; DuckDB 1.5.3 wrote a blob and nothing else."""
    if not puffin.startswith(b"PFA1"):
        return [puffin]
    length = int.from_bytes(puffin[-12:-8], "little")
    footer = json.loads(puffin[-12 - length : -12])
    return [puffin[blob["offset"] : blob["offset"] + blob["length"]] for blob in footer["blobs"]]


for path in sorted(path for path in states.rglob("*") if path.is_file()):
    content = path.read_bytes()
    if path.name.endswith((".metadata.json", ".metadata.json.gz")):
        seed("metadata_json", content)
        metadata = json.loads(gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content)
        mapping = metadata.get("properties", {}).get("schema.name-mapping.default")
        if mapping:
            seed("name_mapping", mapping.encode())
    elif path.name.startswith("snap-") and path.suffix == ".avro":
        seed("manifest_list", content)
    elif path.suffix == ".avro":
        seed("manifest", content)
    elif path.suffix == ".puffin":
        for blob in blobs(content):
            seed("deletion_vector", blob)
    elif path.suffix == ".parquet" and len(content) < 20_000:
        seed("parquet_footer", content)
ROWS = {"type": "tarndb-rows-of-value-v1", "fields": [3], "snapshot-id": -1, "sequence-number": -1, "offset": 4, "length": 40}
LEFT_OUT = json.dumps([{"column": 3, "key": "id"}])
directory = json.dumps({
    "blobs": [{**ROWS, "properties": {"key": "colour", "value": "red"}}],
    "properties": {"columns": "[3]", "left-out": LEFT_OUT},
}).encode()
seed("rows_of_value", b"PFA1" + directory + len(directory).to_bytes(4, "little") + bytes(4) + b"PFA1")
for sample in (Path(__file__).parents[1] / "metadata-indexer" / "tests" / "samples").rglob("*.json"):
    seed("object_event", sample.read_bytes())
for target in sorted(folder.iterdir()):
    print(f"{target.name}: {len(list(target.iterdir()))} seeds")
