"""What is learnt from the content of objects: the table `annotations`, and extractors in Python."""

import io
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib

import pyarrow
import pyarrow.parquet
import pytest
from pyiceberg.catalog.sql import SqlCatalog

import servers
import tarndb
from servers import client
from test_bucket_index import bucket_with_queue
from test_interop import duckdb_table


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    for name, value in servers.CREDENTIALS.items():
        monkeypatch.setenv(name, value)


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(width + 1) * height)) + chunk(b"IEND", b"")


def parquet(rows: int) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"id": range(rows), "name": ["x"] * rows}), file)
    return file.getvalue()


def jpeg(width: int, height: int, make: bytes) -> bytes:
    """A picture of nothing, by a camera that says who made it."""
    field = struct.pack("<HHII", 0x010F, 2, len(make) + 1, 26)
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + field + bytes(4) + make + b"\0"
    exif = b"\xff\xe1" + struct.pack(">H", 8 + len(tiff)) + b"Exif\0\0" + tiff
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8" + exif + frame + b"\xff\xd9"


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "content")
    return file.getvalue()


@tarndb.extractor
def names_in_zip(content):
    """Libraries read an object as they read a file."""
    if content.media_type == "application/zip":
        with zipfile.ZipFile(content) as archive:
            return {"count": len(archive.namelist()), "first": archive.namelist()[0], "none": None, "is_zip": True}


@tarndb.extractor(name="cat")
def is_cat(content):
    if content.key.endswith("broken.txt"):
        raise ValueError("no idea")
    return content.media_type == "text/plain" and any(b"cat" in line for line in io.BufferedReader(content))


def annotations(lake: tarndb.Lakehouse, columns: str, index: str = "docs") -> list[tuple]:
    return lake.sql(f"SELECT key, {columns} FROM {index}.annotations ORDER BY key").fetchall()


def wait_for(question, wanted) -> None:
    end = time.monotonic() + 60
    while (found := question()) != wanted:
        assert time.monotonic() < end, f"{found} instead of {wanted}"
        time.sleep(0.02)


def test_contents_of_a_folder(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.png").write_bytes(png(30, 20))
    (docs / "b.zip").write_bytes(zipped("one", "two"))
    (docs / "c.parquet").write_bytes(parquet(12))
    (docs / "d.txt").write_text("a dog\nand a cat\n")
    (docs / "broken.txt").write_text("x")
    with tarndb.connect(tmp_path / "lake") as lake:
        for wrong in ["dog", ["media", "dog"]]:
            with pytest.raises(tarndb.UnsupportedError, match="`dog`"):
                lake.create_metadata_index("docs", str(docs), extract=wrong)
        index = lake.create_metadata_index("docs", str(docs), extract=["media", "parquet", "text", "names_in_zip", "cat"])
        index.sync()
        assert annotations(lake, "media_type, image_width, image_height, parquet_rows, parquet_columns, text_lines") == [
            ("a.png", "image/png", 30, 20, None, None, None),
            ("b.zip", "application/zip", None, None, None, None, None),
            ("broken.txt", "text/plain", None, None, None, None, 1),
            ("c.parquet", "application/vnd.apache.parquet", None, None, 12, {"id": "Int64", "name": "Utf8"}, None),
            ("d.txt", "text/plain", None, None, None, None, 2),
        ]
        expected = [
            ("a.png", {"cat": "false"}, {}),
            ("b.zip", {"cat": "false", "names_in_zip.count": "2", "names_in_zip.first": "one", "names_in_zip.is_zip": "true"}, {}),
            ("broken.txt", {}, {"cat": "ValueError: no idea"}),
            ("c.parquet", {"cat": "false"}, {}),
            ("d.txt", {"cat": "true"}, {}),
        ]
        assert annotations(lake, "attributes, errors") == expected
        pictures = "SELECT i.key, i.size FROM docs.inventory i JOIN docs.annotations a ON i.key = a.key AND i.e_tag = a.e_tag"
        assert lake.sql(f"{pictures} WHERE a.attributes['cat'] = 'true'").fetchall() == [("d.txt", 16)]

        # Within a second, without being asked.
        (docs / "d.txt").write_text("a dog")
        (docs / "a.png").rename(docs / "e.png")
        cats = lambda: annotations(lake, "attributes['cat'], image_width")
        wait_for(cats, [("b.zip", "false", None), ("broken.txt", None, None), ("c.parquet", "false", None), ("d.txt", "false", None), ("e.png", "false", 30)])
        assert index.status()["annotated"] == 5
        index.stop()

        ours = lake.table("docs.annotations").scan().arrow().to_pylist()
        plain = lambda rows: [{name: row[name] for name in ours[0]} for row in sorted(rows, key=lambda row: row["key"])]
        catalog = SqlCatalog("default", uri=f"sqlite:///{tmp_path}/lake/catalog.db")
        assert plain(catalog.load_table("docs.annotations").scan().to_arrow().to_pylist()) == plain(ours)
        assert plain(duckdb_table(lake.table("docs.annotations").metadata_location).to_pylist()) == plain(ours)


def test_contents_of_a_bucket_of_which_a_queue_tells(tmp_path):
    with servers.moto(tmp_path) as endpoint:
        s3, _, _ = bucket_with_queue(endpoint, "extracted")
        for number in range(20):
            s3.put_object(Bucket="extracted", Key=f"{number}.txt", Body=b"cat" if number % 2 else b"dog")
        with tarndb.connect(tmp_path / "lake") as lake:
            options = {"endpoint": endpoint, "region": servers.REGION}
            lake.create_metadata_index("docs", "s3://extracted", "sqs://extracted", "media,cat", options=options)
            cats = "SELECT count(*) FROM docs.annotations WHERE attributes['cat'] = 'true'"
            wait_for(lambda: lake.sql(cats).fetchall(), [(10,)])
            s3.put_object(Bucket="extracted", Key="0.txt", Body=b"a cat")
            s3.delete_object(Bucket="extracted", Key="1.txt")
            s3.put_object(Bucket="extracted", Key="it's a/picture.png", Body=png(7, 5))
            wanted = [("0.txt", "true"), ("it's a/picture.png", "false")]
            some = "attributes['cat'] FROM docs.annotations WHERE key IN ('0.txt', '1.txt') OR image_width = 7 ORDER BY key"
            wait_for(lambda: lake.sql(f"SELECT key, {some}").fetchall(), wanted)
            assert lake.metadata_index("docs").status()["last_error"] is None


def test_contents_of_a_real_store(tmp_path):
    """Large ones are read as far as it takes, each version is one of its own, and what is nobody's content is left out."""
    reads = []

    @tarndb.extractor(name="ends")
    def ends(content):
        reads.append(threading.current_thread())
        content.seek(-3, io.SEEK_END)
        end = content.read()
        content.seek(0)
        with content:
            return {"first": content.read(3).decode(), "last": end.decode(), "size": content.size}

    with servers.seaweedfs(tmp_path) as endpoint:
        s3 = client("s3", endpoint)
        s3.put_object(Bucket="lake", Key="large", Body=b"abc" + bytes(20_000_000) + b"xyz")
        s3.put_object(Bucket="lake", Key="lines", Body=b"one\n" * 3_000_000)
        s3.put_object(Bucket="lake", Key="empty", Body=b"")
        s3.put_object(Bucket="lake", Key="table", Body=parquet(100_000))
        with tarndb.connect(tmp_path / "lake") as lake:
            options = {"endpoint": endpoint, "region": servers.REGION, "reconcile_every": "1 second"}
            index = lake.create_metadata_index("docs", "s3://lake", extract=["media", "parquet", "text", "ends"], options=options)
            index.sync()
            columns = "media_type, parquet_rows, text_lines, attributes['ends.first'], attributes['ends.last'], errors['ends'] IS NULL"
            wanted = [
                ("empty", None, None, None, None, None, False),
                ("large", "application/octet-stream", None, None, "abc", "xyz", True),
                ("lines", "text/plain", None, 3_000_000, "one", "ne\n", True),
                ("table", "application/vnd.apache.parquet", 100_000, None, "PAR", "AR1", True),
            ]
            assert annotations(lake, columns) == wanted
            assert len(reads) == 4 and threading.main_thread() not in reads
            s3.put_object(Bucket="lake", Key="lines", Body=b"two\n")
            s3.delete_object(Bucket="lake", Key="large")
            lines = "SELECT key, text_lines FROM docs.annotations WHERE key IN ('large', 'lines')"
            wait_for(lambda: lake.sql(lines).fetchall(), [("lines", 1)])


def test_a_process_ends_while_extractors_run(tmp_path):
    code = """
import sys, time, tarndb, pathlib

@tarndb.extractor
def slow(content):
    pathlib.Path(sys.argv[2]).touch()
    time.sleep(100)

lake = tarndb.connect(sys.argv[1])
lake.create_metadata_index("docs", sys.argv[3], extract="slow")
while not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.01)
print("ends")
"""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a").write_text("a")
    arguments = [str(tmp_path / "lake"), str(tmp_path / "started"), str(docs)]
    ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "ends\n"), ended.stderr


def test_extractors_have_names(tmp_path):
    for name in ["media", "a b", ""]:
        with pytest.raises(tarndb.InvalidInputError):
            tarndb.extractor(lambda content: None, name=name or "<lambda>")
    assert is_cat.__name__ == "is_cat", "a function stays what it is"


def test_only_the_pictures_with_a_cat(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name, content in {
        "tom.jpg": jpeg(640, 480, b"Cat Cameras"),
        "rex.jpg": jpeg(320, 200, b"Dog Cameras"),
        "cat.txt": b"Cat Cameras",
        "broken.jpg": jpeg(1, 1, b"Cat Cameras")[:30],
    }.items():
        (pictures / name).write_bytes(content)

    @tarndb.extractor
    def sees_a_cat(content):
        return b"Cat" in content.read()

    with tarndb.connect(tmp_path / "lake") as lake:
        lake.create_metadata_index("pictures", str(pictures), extract=["media", "sees_a_cat"]).sync()
        found = "SELECT key, exif['Make'], image_width, image_height FROM pictures.annotations"
        found += " WHERE media_type LIKE 'image/%' AND attributes['sees_a_cat'] = 'true' AND image_width > 1"
        assert lake.sql(found).fetchall() == [("tom.jpg", "Cat Cameras", 640, 480)]
        broken = "SELECT key FROM pictures.annotations WHERE errors['media'] IS NOT NULL"
        assert lake.sql(broken).fetchall() == [("broken.jpg",)]
