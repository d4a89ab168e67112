"""Metadata indexes of buckets: a real store, a real queue, and events of all stores over HTTP."""

import contextlib
import hashlib
import hmac
import http.server
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest

import servers
import tarndb
from servers import REGION, client
from test_interop import duckdb_table

SAMPLES = Path(__file__).parents[2] / "metadata-indexer" / "tests" / "samples"


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    for name, value in servers.CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    with servers.moto(tmp_path_factory.mktemp("moto")) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def seaweedfs(tmp_path_factory):
    with servers.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as endpoint:
        yield endpoint


def inventory(lake: tarndb.Lakehouse, index: str = "photos") -> dict[str, int]:
    rows = lake.sql(f'SELECT key, size FROM "{index}".inventory WHERE NOT is_delete_marker').fetchall()
    assert len(rows) == len(dict(rows)), rows
    return dict(rows)


def wait_for(question, wanted) -> None:
    end = time.monotonic() + 60
    while (found := question()) != wanted:
        assert time.monotonic() < end, f"{found} instead of {wanted}"
        time.sleep(0.02)


def listing(s3, bucket: str) -> dict[str, int]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {found["Key"]: found["Size"] for page in pages for found in page.get("Contents", [])}


def bucket_with_queue(endpoint: str, name: str):
    """A bucket whose notifications go to a queue of its name."""
    s3, sqs = client("s3", endpoint), client("sqs", endpoint)
    s3.create_bucket(Bucket=name)
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:ObjectTagging:*"]
    configuration = {"QueueConfigurations": [{"QueueArn": arn, "Events": events}]}
    s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration=configuration)
    return s3, sqs, url


def test_changes_come_through_a_queue(tmp_path, moto):
    s3, sqs, queue = bucket_with_queue(moto, "photos")
    s3.put_object(Bucket="photos", Key="before é+%/x y", Body=b"12345", Metadata={"colour": "red"}, Tagging="cat=yes")
    with tarndb.connect(tmp_path / "lake") as lake:
        lake.sql(f"CREATE METADATA INDEX photos ON 's3://photos' WITH (events = 'sqs://photos', endpoint = '{moto}')")
        # Each message is handed to one of those that read a queue.
        with pytest.raises(tarndb.Error, match="metadata index `photos` takes what comes through `sqs://photos`"):
            lake.create_metadata_index("others", "s3://photos/other", events="sqs://photos", options={"endpoint": moto})
        index = lake.metadata_index("photos")
        assert index.status()["state"] == "Active"
        rows = lake.sql("SELECT key, size, storage_class, object_tags, user_metadata FROM photos.inventory").fetchall()
        assert rows == [("before é+%/x y", 5, "STANDARD", [("cat", "yes")], [("colour", "red")])] or rows == [
            ("before é+%/x y", 5, "STANDARD", {"cat": "yes"}, {"colour": "red"})
        ]

        s3.put_object(Bucket="photos", Key="new", Body=b"1", Tagging="cat=no")
        s3.put_object(Bucket="photos", Key="folder/", Body=b"")
        s3.copy_object(Bucket="photos", Key="copy", CopySource={"Bucket": "photos", "Key": "new"})
        wait_for(lambda: inventory(lake), listing(s3, "photos"))
        s3.put_object(Bucket="photos", Key="new", Body=b"4444")
        s3.delete_object(Bucket="photos", Key="copy")
        upload = s3.create_multipart_upload(Bucket="photos", Key="big", Metadata={"colour": "blue"})["UploadId"]
        part = s3.upload_part(Bucket="photos", Key="big", UploadId=upload, PartNumber=1, Body=b"x" * 100)
        parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
        s3.complete_multipart_upload(Bucket="photos", Key="big", UploadId=upload, MultipartUpload=parts)
        wait_for(lambda: inventory(lake), listing(s3, "photos"))
        tagging = {"TagSet": [{"Key": "cat", "Value": "two"}]}
        s3.put_object_tagging(Bucket="photos", Key="big", Tagging=tagging)
        cats = "SELECT key FROM photos.inventory WHERE object_tags['cat'] = 'two'"
        wait_for(lambda: lake.sql(cats).fetchall(), [("big",)])
        kinds = "SELECT record_type FROM photos.journal WHERE key = 'big' ORDER BY sequence_number"
        assert [kind for (kind,) in lake.sql(kinds).fetchall()] == ["CREATE", "UPDATE_METADATA"]
        # What arrived is not in the queue any more.
        counts = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        left = lambda: sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=counts)["Attributes"]
        wait_for(lambda: {left()[count] for count in counts}, {"0"})
        # What is no event is kept aside, and stops nothing.
        for body in ["no JSON", '{"a": 1}', json.dumps({"Records": [{"eventName": "ObjectCreated:Put"}]})]:
            sqs.send_message(QueueUrl=queue, MessageBody=body)
        s3.put_object(Bucket="photos", Key="last", Body=b"55555")
        wait_for(lambda: inventory(lake), listing(s3, "photos"))
        dead = lambda: lake.sql("SELECT body FROM photos.dead_letters").fetchall()
        wait_for(lambda: len(dead()) if index.status()["events"]["dead"] else 0, 3)
        assert ("no JSON",) in dead()
        status = index.status()
        assert status["state"] == "Active" and status["last_error"] is None and status["lag_ms"] is not None
        assert index.reconcile() == {"created": 0, "overwritten": 0, "deleted": 0}
        # Others read the same.
        for table in ["photos.journal", "photos.inventory"]:
            ours = lake.table(table).scan().arrow()
            theirs = duckdb_table(lake.table(table).metadata_location)
            order = lambda row: (row["sequence_number"], row["key"])
            plain = lambda rows: [{name: row[name] for name in ours.column_names} for row in sorted(rows, key=order)]
            assert plain(theirs.to_pylist()) == plain(ours.to_pylist())


FOLLOWER = """
import sys, time, tarndb
lake = tarndb.connect(sys.argv[1])
for name in ["told", "looked"]:
    lake.metadata_index(name).start()
print("started", flush=True)
time.sleep(600)
"""


class Told:
    """Changes that are numbered, in messages of a queue."""

    def __init__(self, seed: int):
        self.random, self.changes, self.live, self.messages = random.Random(seed), set(), {}, []

    def record(self) -> dict:
        number = len(self.changes)
        key, sequencer, size = f"k/{self.random.randrange(60)}", f"{number:015X}1", self.random.randrange(1000)
        deleted = self.random.random() < 0.3
        self.changes.add((key, sequencer, "DELETE" if deleted else "CREATE"))
        if deleted:
            self.live.pop(key, None)
        else:
            self.live[key] = size
        what = {"key": key, "sequencer": sequencer} | ({} if deleted else {"size": size, "eTag": sequencer})
        event = "ObjectRemoved:Delete" if deleted else "ObjectCreated:Put"
        when = f"2026-03-04T{10 + number // 3600}:{number // 60 % 60:02}:{number % 60:02}Z"
        return {"eventSource": "aws:s3", "eventName": event, "eventTime": when, "s3": {"bucket": {"name": "told"}, "object": what}}

    def some(self) -> list[str]:
        """New ones, in any order, and some that come again."""
        records = [[self.record() for _ in range(self.random.randrange(1, 8))] for _ in range(self.random.randrange(5, 40))]
        new = [json.dumps({"Records": some}) for some in records]
        self.messages += new
        messages = new + self.random.sample(self.messages, min(len(self.messages), 5))
        self.random.shuffle(messages)
        return messages


def test_a_process_that_is_killed_loses_and_repeats_nothing(tmp_path, moto):
    s3, _, _ = bucket_with_queue(moto, "looked")
    _, sqs, queue = bucket_with_queue(moto, "told")
    options = {"endpoint": moto, "fetch": "none", "reconcile_every": "never"}
    with tarndb.connect(tmp_path / "lake") as lake:
        for name, queue_of in {"told": "sqs://123456789012/told", "looked": "sqs://looked"}.items():
            lake.create_metadata_index(name, f"s3://{name}", events=queue_of, options=options).stop()
    seed = random.randrange(2**32)
    print("seed", seed)
    told, written = Told(seed), 0
    for _ in range(10):
        command = [sys.executable, "-c", FOLLOWER, str(tmp_path / "lake")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ))
        try:
            assert process.stdout.readline() == b"started\n"
            for message in told.some():
                sqs.send_message(QueueUrl=queue, MessageBody=message)
            for _ in range(told.random.randrange(1, 20)):
                s3.put_object(Bucket="looked", Key=f"{written % 40}", Body=b"x" * written)
                written += 1
            # It is killed while it takes them.
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(told.random.random() * 0.3)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    with tarndb.connect(tmp_path / "lake") as lake:
        indexes = {name: lake.metadata_index(name) for name in ["told", "looked"]}
        for index in indexes.values():
            index.start()
        # Messages that the killed ones had come again when their time is over: that may take a minute.
        end = time.monotonic() + 150
        while inventory(lake, "looked") != listing(s3, "looked") or inventory(lake, "told") != told.live:
            assert time.monotonic() < end, "messages were lost"
            time.sleep(0.1)
        counts = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        left = lambda: sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=counts)["Attributes"]
        wait_for(lambda: {left()[count] for count in counts}, {"0"})
        for index in indexes.values():
            index.stop()
        rows = lake.sql("SELECT key, sequence_number, record_type FROM told.journal").fetchall()
        assert len(rows) == len(set(rows)) and set(rows) == told.changes
        # An event of moto has no sequencer, so that what is told twice is found once, and what was overwritten at once never.
        rows = lake.sql("SELECT key, e_tag FROM looked.journal").fetchall()
        assert len(set(rows)) == len(rows) <= written
        assert indexes["looked"].reconcile() == {"created": 0, "overwritten": 0, "deleted": 0}


def test_versions(tmp_path, moto):
    s3 = client("s3", moto)
    s3.create_bucket(Bucket="versions")
    s3.put_object(Bucket="versions", Key="old", Body=b"1")
    s3.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket="versions", Key="a", Body=b"1")["VersionId"]
    s3.put_object(Bucket="versions", Key="a", Body=b"22")
    s3.delete_object(Bucket="versions", Key="old")
    with tarndb.connect(tmp_path / "lake") as lake:
        index = lake.create_metadata_index("versions", "s3://versions", options={"endpoint": moto})
        rows = lambda: lake.sql("SELECT key, version_id, size, is_delete_marker FROM versions.inventory").fetchall()

        def listed():
            page = s3.list_object_versions(Bucket="versions")
            version = lambda found: None if found["VersionId"] == "null" else found["VersionId"]
            versions = [(found["Key"], version(found), found["Size"], False) for found in page.get("Versions", [])]
            return sorted(versions + [(found["Key"], version(found), 0, True) for found in page.get("DeleteMarkers", [])], key=str)

        assert sorted(rows(), key=str) == listed() and len(rows()) == 4
        s3.delete_object(Bucket="versions", Key="a", VersionId=first)
        s3.delete_object(Bucket="versions", Key="a")
        assert index.reconcile() == {"created": 1, "overwritten": 0, "deleted": 1}
        assert sorted(rows(), key=str) == listed() and len(rows()) == 4


def test_versions_come_through_a_queue(tmp_path, moto):
    s3, _, _ = bucket_with_queue(moto, "history")
    s3.put_bucket_versioning(Bucket="history", VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket="history", Key="a", Body=b"1")["VersionId"]
    with tarndb.connect(tmp_path / "lake") as lake:
        index = lake.create_metadata_index("history", "s3://history", events="sqs://history", options={"endpoint": moto})
        rows = lambda: sorted(lake.sql("SELECT key, version_id, size, is_delete_marker FROM history.inventory").fetchall())

        def listed():
            page = s3.list_object_versions(Bucket="history")
            versions = [(found["Key"], found["VersionId"], found["Size"], False) for found in page.get("Versions", [])]
            return sorted(versions + [(found["Key"], found["VersionId"], 0, True) for found in page.get("DeleteMarkers", [])])

        s3.put_object(Bucket="history", Key="a", Body=b"22")
        # moto names no versions, and many come at once.
        for number in range(20):
            s3.put_object(Bucket="history", Key="b", Body=b"3" * number)
        wait_for(rows, listed())
        assert len(rows()) == 22
        journal = lake.sql("SELECT version_id FROM history.journal WHERE record_type = 'CREATE'").fetchall()
        assert sorted(journal) == sorted((version,) for _, version, _, _ in rows() if version != first)
        # moto tells nothing of deletions.
        s3.delete_object(Bucket="history", Key="a")
        s3.delete_object(Bucket="history", Key="a", VersionId=first)
        assert index.reconcile() == {"created": 1, "overwritten": 0, "deleted": 1}
        assert rows() == listed()
        index.stop()


def test_a_store_that_sends_no_events_is_listed(tmp_path, seaweedfs):
    s3 = client("s3", seaweedfs)
    keys = ["folder/", "a b/ü+%.txt", "it's", "img/cat.png", *(f"many/{number}" for number in range(2500))]
    put = lambda key: s3.put_object(Bucket="lake", Key=key, Body=b"" if key.endswith("/") else b"12", Metadata={"colour": "red"})
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, keys))
    tagging = {"TagSet": [{"Key": "animal", "Value": "cat"}]}
    s3.put_object_tagging(Bucket="lake", Key="img/cat.png", Tagging=tagging)
    with tarndb.connect(tmp_path / "lake") as lake:
        options = {"endpoint": seaweedfs, "reconcile_every": "1 second"}
        index = lake.create_metadata_index("all", "s3://lake", options=options)
        assert inventory(lake, "all") == listing(s3, "lake") and len(inventory(lake, "all")) == len(keys)
        found = lake.sql("""SELECT key FROM "all".inventory WHERE object_tags['animal'] = 'cat'""").fetchall()
        assert found == [("img/cat.png",)]
        # SeaweedFS keeps none of what ends with a slash.
        red = lake.sql("""SELECT count(*) FROM "all".inventory WHERE user_metadata['colour'] = 'red'""").fetchall()
        assert red == [(len(keys) - 1,)]
        part = lake.create_metadata_index("part", "s3://lake/many", options={"endpoint": seaweedfs, "fetch": "none"})
        assert len(inventory(lake, "part")) == 2500 and part.status()["source"] == "s3://lake/many"
        # Nobody tells what happens, and it is found.
        s3.put_object(Bucket="lake", Key="new", Body=b"333")
        s3.delete_object(Bucket="lake", Key="it's")
        wait_for(lambda: inventory(lake, "all"), listing(s3, "lake"))
        changes = lake.sql("""SELECT key, record_type FROM "all".journal ORDER BY key""").fetchall()
        assert changes == [("it's", "DELETE"), ("new", "CREATE")]
        assert part.reconcile() == {"created": 0, "overwritten": 0, "deleted": 0}
        index.stop()


def test_buckets_that_cannot_be_indexed(tmp_path, seaweedfs, monkeypatch):
    with tarndb.connect(tmp_path / "lake") as lake:
        with pytest.raises(tarndb.UnavailableError, match="NoSuchBucket"):
            lake.create_metadata_index("docs", "s3://nothing", options={"endpoint": seaweedfs})
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
        with pytest.raises(tarndb.UnavailableError) as error:
            lake.create_metadata_index("docs", "s3://lake", options={"endpoint": seaweedfs})
        assert "hunter2" not in str(error.value)
        assert lake.sql("SHOW METADATA INDEXES").fetchall() == []
        with pytest.raises(tarndb.UnsupportedError, match="events"):
            lake.create_metadata_index("docs", str(tmp_path), events="sqs://queue")
        with pytest.raises(tarndb.InvalidInputError, match="secret"):
            lake.create_metadata_index("docs", "s3://lake", events="http://127.0.0.1:1/x")


class ListsOnly(http.server.BaseHTTPRequestHandler):
    """A bucket whose objects may be listed and not read."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, int] = {}
    lists = True

    def answer(self, status: int, body: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_HEAD(self) -> None:
        self.answer(403)

    def do_GET(self) -> None:
        query = parse_qs(urlparse(self.path).query, keep_blank_values=True)
        if "versioning" in query:
            return self.answer(200, "<VersioningConfiguration/>")
        if not self.lists:
            return self.answer(403, "<Error><Code>AccessDenied</Code><Message>not now</Message></Error>")
        prefix = query.get("prefix", [""])[0]
        entry = "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;{}&quot;</ETag><Size>{}</Size></Contents>"
        found = "".join(entry.format(key, size, size) for key, size in self.objects.items() if key.startswith(prefix))
        self.answer(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>")

    def log_message(self, *arguments) -> None:
        pass


def test_objects_that_may_only_be_listed(tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), ListsOnly)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    touched = lambda key: {"key": f"/buckets/locked/{key}", "message": {"new_entry": {"name": key}, "new_parent_path": "/buckets/locked"}}
    try:
        ListsOnly.objects.update({"a": 1, "ab": 2})
        options = {"endpoint": f"http://127.0.0.1:{server.server_port}", "reconcile_every": "never"}
        with tarndb.connect(tmp_path / "lake") as lake:
            index = lake.create_metadata_index("locked", "s3://locked", options=options)
            assert inventory(lake, "locked") == {"a": 1, "ab": 2}
            assert "403" in index.status()["last_error"]
            ListsOnly.objects["c"] = 3
            del ListsOnly.objects["a"]
            assert index.push([touched("c"), touched("a"), touched("ab")])["applied"] == 2
            assert inventory(lake, "locked") == {"ab": 2, "c": 3}
            del ListsOnly.objects["c"]
            assert index.reconcile() == {"created": 0, "overwritten": 0, "deleted": 1}
            # When nothing is allowed, it is no matter of single objects.
            ListsOnly.lists = False
            with pytest.raises(tarndb.UnavailableError):
                index.push(touched("ab"))
            assert inventory(lake, "locked") == {"ab": 2}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def request(url: str, body: bytes | None, headers: dict[str, str] | None = None, method: str = "POST") -> tuple[int, bytes]:
    asked = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


SECRET = "a secret that nobody guesses"
TOKEN = {"Authorization": f"Bearer {SECRET}"}


@contextlib.contextmanager
def webhook(tmp_path, endpoint: str, bucket: str, **more: str):
    """An index of a bucket that listens for events, and the location where it does."""
    (tmp_path / "secret").write_text(SECRET + "\n")
    (port,) = servers.free_ports(1)
    url = f"http://127.0.0.1:{port}/hook/{bucket}"
    options = {"endpoint": endpoint, "secret": f"file:{tmp_path}/secret", "reconcile_every": "never", **more}
    with tarndb.connect(tmp_path / "lake") as lake:
        yield lake, lake.create_metadata_index("photos", f"s3://{bucket}", events=url, options=options), url


# Samples of which none is a change of an object: how a sender asks whether it is welcome.
OTHER_SAMPLES = {"event_grid_validation", "s3_test"}


def test_events_of_all_stores_come_over_http(tmp_path, seaweedfs):
    s3 = client("s3", seaweedfs)
    with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket="photos")
    with webhook(tmp_path, seaweedfs, "photos", fetch="none") as (lake, index, url):
        before = index.status()["events"]
        for sample in sorted(SAMPLES.glob("*.json")):
            for _ in range(2):
                status, answer = request(url, sample.read_bytes(), TOKEN)
                assert status == 200, (sample, answer)
            events = index.status()["events"]
            told, before = {name: count - before[name] for name, count in events.items()}, events
            # Of each format something is a change, and told twice it is none.
            assert sample.stem in OTHER_SAMPLES or told["applied"] > 0, (sample, told)
            assert told["duplicates"] >= told["applied"], (sample, told)
            if sample.stem == "event_grid_validation":
                assert json.loads(answer) == {"validationResponse": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}
        # Each change is there once, although each message came twice.
        journal = "SELECT key, version_id, sequence_number FROM photos.journal"
        rows = lake.sql(journal).fetchall()
        assert len(rows) == len(set(rows)) == index.status()["events"]["applied"] > 10
        reasons = [reason for (reason,) in lake.sql("SELECT reason FROM photos.dead_letters").fetchall()]
        assert sorted(set(reasons)) == [
            "`DirectoryDeleted` does not tell what was in it: reconcile the index",
            "`ObjectTeleported:Put` is no event of S3 that is known here",
        ]
        live = inventory(lake)
        assert live["2026/réd flower+x%20.jpg"] == 52431 and "big.bin" not in live
        # What is not so is not so after a listing: none of it is in the bucket.
        index.reconcile()
        assert inventory(lake) == listing(s3, "photos")


def test_recorded_events_come_over_http(tmp_path, seaweedfs):
    s3 = client("s3", seaweedfs)
    with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket="photos")
    recorded = sorted((SAMPLES / "recorded").glob("*.json"))
    assert {sample.stem for sample in recorded} >= {"ceph", "moto", "moto_event_bridge", "seaweedfs"}
    with webhook(tmp_path, seaweedfs, "photos", fetch="none") as (lake, index, url):
        for sample in recorded:
            for turn in range(2):
                before = index.status()["events"]
                assert request(url, sample.read_bytes(), TOKEN)[0] == 200, sample
                told = {name: count - before[name] for name, count in index.status()["events"].items()}
                assert told["received"] > 0 and told["dead"] == 0, (sample, told)
                # Some only tell which objects something happened to: some of what others told is not there.
                if turn or sample.stem == "seaweedfs":
                    assert told["applied"] == 0, (sample, told)
                else:
                    assert told["applied"] == told["received"] if sample.stem == "ceph" else told["applied"] > 0, (sample, told)
        ceph = "SELECT key, version_id, record_type FROM photos.journal WHERE requester = 'u' ORDER BY sequence_number"
        key, versions = "img/ü a+b.txt", ["j3NCxk5mL62HOA6ZVu5kJvhObpC0zCS", "zBppAM-iY5R5phDkeEVqX6bBcUxFP84"]
        assert lake.sql(ceph).fetchall() == [
            (key, None, "CREATE"),
            (key, None, "CREATE"),
            ("copy.jpg", None, "CREATE"),
            ("large", None, "CREATE"),
            ("copy.jpg", None, "DELETE"),
            ("large", None, "DELETE"),
            *((key, version, "CREATE") for version in versions),
            # Of which version is not told, and here are none: what would say that the object is deleted deletes it.
            ("copy.jpg", None, "CREATE"),
            ("copy.jpg", None, "DELETE"),
            ("large", None, "CREATE"),
            ("copy.jpg", "VN8j-x-UpsTuvk2harmgvQvauGIw.Wp", "DELETE"),
        ]
        tagged = "SELECT version_id, size FROM photos.inventory WHERE object_tags['kind'] = 'cat'"
        assert lake.sql(tagged).fetchall() == [(versions[0], 10)]
        index.reconcile()
        assert inventory(lake) == listing(s3, "photos")


def test_seaweedfs_tells_of_its_objects(tmp_path):
    (port,) = servers.free_ports(1)
    url = f"http://127.0.0.1:{port}/objects"
    (tmp_path / "secret").write_text(SECRET)
    with servers.seaweedfs(tmp_path, url, SECRET) as endpoint, tarndb.connect(tmp_path / "index") as lake:
        s3 = client("s3", endpoint)
        for bucket in ["told", "other"]:
            s3.create_bucket(Bucket=bucket)
        options = {"endpoint": endpoint, "secret": f"file:{tmp_path}/secret", "reconcile_every": "never"}
        index = lake.create_metadata_index("photos", "s3://told", events=url, options=options)
        for number in range(5):
            s3.put_object(Bucket="told", Key=f"img/ü {number}+.txt", Body=b"x" * number, Metadata={"colour": "red"})
            s3.put_object(Bucket="other", Key=f"{number}", Body=b"x")
        s3.copy_object(Bucket="told", Key="copy", CopySource={"Bucket": "told", "Key": "img/ü 3+.txt"})
        s3.put_object_tagging(Bucket="told", Key="copy", Tagging={"TagSet": [{"Key": "cat", "Value": "tom"}]})
        s3.put_object(Bucket="told", Key="img/ü 1+.txt", Body=b"another")
        s3.delete_object(Bucket="told", Key="img/ü 2+.txt")
        upload = s3.create_multipart_upload(Bucket="told", Key="parts")["UploadId"]
        part = s3.upload_part(Bucket="told", Key="parts", UploadId=upload, PartNumber=1, Body=b"12345")
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        s3.complete_multipart_upload(Bucket="told", Key="parts", UploadId=upload, MultipartUpload=parts)
        wait_for(lambda: inventory(lake), listing(s3, "told"))
        assert len(inventory(lake)) == 6
        tagged = "SELECT key, user_metadata['colour'] FROM photos.inventory WHERE object_tags['cat'] = 'tom'"
        wait_for(lambda: lake.sql(tagged).fetchall(), [("copy", "red")])
        # What is told of other buckets, as its filer cannot tell of one only, is not what was not understood.
        assert index.status()["events"]["dead"] == 0
        assert index.status()["events"]["ignored"] > 5
        assert index.reconcile() == {"created": 0, "overwritten": 0, "deleted": 0}


def test_credentials_are_those_of_awss_own_files(tmp_path, moto, monkeypatch):
    client("s3", moto).create_bucket(Bucket="profiled")
    client("s3", moto).put_object(Bucket="profiled", Key="a", Body=b"1")
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    config, keys = tmp_path / "config", tmp_path / "credentials"
    for name, file in {"AWS_CONFIG_FILE": config, "AWS_SHARED_CREDENTIALS_FILE": keys}.items():
        monkeypatch.setenv(name, str(file))
    options = {"endpoint": moto, "reconcile_every": "never"}
    with tarndb.connect(tmp_path / "lake") as lake:
        create = lambda: lake.create_metadata_index("photos", "s3://profiled", options=options)
        with pytest.raises(tarndb.InvalidInputError, match="region"):
            create()
        config.write_text("[profile lake]\nregion = us-east-1\n")
        monkeypatch.setenv("AWS_PROFILE", "lake")
        with pytest.raises(tarndb.UnavailableError):
            create()
        assert lake.sql("SHOW METADATA INDEXES").fetchall() == []
        keys.write_text("[lake]\naws_access_key_id = key\naws_secret_access_key = a secret of the profile\n")
        index = create()
        assert inventory(lake) == {"a": 1}
        assert "a secret of" not in repr(index) + str(index.status())


def test_what_is_acknowledged_is_there_when_it_stops(tmp_path, moto):
    client("s3", moto).create_bucket(Bucket="stopped")
    with webhook(tmp_path, moto, "stopped", fetch="none") as (lake, index, url):
        acknowledged = []

        def send(number: int) -> None:
            record = {"key": f"{number}", "size": number, "eTag": "e", "sequencer": f"{number + 1:016X}"}
            event = {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "eventTime": "2026-03-04T10:00:00Z"}
            body = json.dumps({"Records": [event | {"s3": {"bucket": {"name": "stopped"}, "object": record}}]}).encode()
            # Who comes too late finds nobody.
            with contextlib.suppress(OSError):
                if request(url, body, TOKEN)[0] == 200:
                    acknowledged.append((f"{number}", number))

        with ThreadPoolExecutor(16) as pool:
            sent = [pool.submit(send, number) for number in range(400)]
            wait_for(lambda: len(acknowledged) > 20, True)
            index.stop()
            for one in sent:
                one.result()
        assert index.status()["state"] == "Stopped" and 20 < len(acknowledged) <= 400
        journal = lake.sql("SELECT key, size FROM photos.journal").fetchall()
        assert len(journal) == len(set(journal)) and set(acknowledged) <= set(journal)
        assert set(lake.sql("SELECT key, size FROM photos.inventory").fetchall()) == set(journal)
        print(len(acknowledged), len(journal))


def test_who_did_what_is_told(tmp_path, moto):
    s3 = client("s3", moto)
    s3.create_bucket(Bucket="told-of")
    with webhook(tmp_path, moto, "told-of", fetch="none") as (lake, index, url):
        body = (SAMPLES / "s3.json").read_bytes().replace(b'"photos"', b'"told-of"')
        assert request(url, body, TOKEN)[0] == 200
        columns = "key, record_type, requester, source_ip_address, request_id, size, e_tag, version_id, is_delete_marker, is_multipart"
        rows = lake.sql(f"SELECT {columns} FROM photos.journal ORDER BY sequence_number, key").fetchall()
        who = ("AWS:AIDAEXAMPLE1", "203.0.113.9")
        tag, version = "d41d8cd98f00b204e9800998ecf8427e", "096fKKXTRTtl3on89fVO.nfljtsv6qko"
        parts = "9b2cf535f27731c974343645a3985328-10"
        assert rows == [
            ("2026/réd flower+x.jpg", "CREATE", *who, "C3D13FE58DE4C810", 52431, tag, version, False, False),
            ("big.bin", "CREATE", *who, "C3D13FE58DE4C811", 52428800, parts, None, False, True),
            ("big.bin", "DELETE", *who, "9A1B2C3D4E5F6071", None, None, None, None, None),
            ("old.txt", "DELETE", "s3.amazonaws.com", "s3.amazonaws.com", "9A1B2C3D4E5F6072", 0, None, "m1", True, None),
        ]


def test_columns_of_objects(tmp_path, moto):
    s3 = client("s3", moto)
    s3.create_bucket(Bucket="columns")
    kms = "arn:aws:kms:us-east-1:123456789012:key/0c7f0c4e"
    about = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms, "BucketKeyEnabled": True, "ChecksumAlgorithm": "SHA256"}
    s3.put_object(Bucket="columns", Key="sealed", Body=b"123", StorageClass="STANDARD_IA", Metadata={"Colour": "red"}, **about)
    upload = s3.create_multipart_upload(Bucket="columns", Key="parts")["UploadId"]
    part = s3.upload_part(Bucket="columns", Key="parts", UploadId=upload, PartNumber=1, Body=b"4567")
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    s3.complete_multipart_upload(Bucket="columns", Key="parts", UploadId=upload, MultipartUpload=parts)
    with tarndb.connect(tmp_path / "lake") as lake:
        lake.create_metadata_index("columns", "s3://columns", options={"endpoint": moto, "reconcile_every": "never"}).stop()
        columns = "key, size, storage_class, is_multipart, encryption_status, is_bucket_key_enabled, kms_key_arn, checksum_algorithm"
        rows = lake.sql(f"SELECT {columns}, user_metadata FROM columns.inventory ORDER BY key").fetchall()
        assert rows == [
            ("parts", 4, "STANDARD", True, None, None, None, None, {}),
            ("sealed", 3, "STANDARD_IA", False, "SSE-KMS", True, kms, "SHA256", {"colour": "red"}),
        ]


def test_strangers_and_nonsense_change_nothing(tmp_path, seaweedfs):
    s3 = client("s3", seaweedfs)
    with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket="photos")
    body = (SAMPLES / "s3.json").read_bytes()
    signature = lambda secret: "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    with webhook(tmp_path, seaweedfs, "photos", fetch="none") as (lake, index, url):
        assert request(url, body) [0] == 401
        assert request(url, body, {"Authorization": "Bearer guess"})[0] == 401
        assert request(url, body, {"X-Tarndb-Signature": signature("guess")})[0] == 401
        assert request(url + "?token=guess", body)[0] == 401
        assert request(url, None, method="GET")[0] == 401
        assert request(url.replace("/hook/", "/other/"), body, TOKEN)[0] == 404
        assert request(url, None, TOKEN, method="GET")[0] == 405
        assert request(url, b"{", TOKEN)[0] == 400
        assert request(url, b"\xff\xfe", TOKEN)[0] == 400
        assert request(url, b" " * (64 * 1024), TOKEN)[0] == 413
        assert request(url, b'{"a": "' + b"x" * (64 * 1024) + b'"}', TOKEN)[0] == 413
        assert index.status()["events"]["received"] == 0 and index.status()["changes"] == 0
        assert request(url, b'{"a": "' + b"x" * (64 * 1024 - 20) + b'"}', TOKEN)[0] == 200
        assert index.status()["events"]["dead"] == 1
        # Those who know the secret.
        assert request(url, None, TOKEN, method="HEAD")[0] == 200
        assert request(url, body, {"X-Tarndb-Signature": signature(SECRET)})[0] == 200
        assert request(url + "?code=" + SECRET.replace(" ", "%20"), body)[0] == 200
        assert request(url, body, {"X-Api-Key": SECRET})[0] == 200
        assert index.status()["changes"] == 4
        assert SECRET not in str(lake.sql("SHOW METADATA INDEXES").fetchall()) and SECRET not in repr(index)
        assert SECRET not in str(lake.table("photos.journal").properties)
        # What is pushed is the same, and known already.
        assert index.push(body)["duplicates"] == 5
        assert index.push(json.loads(body))["applied"] == 0
        with pytest.raises(tarndb.InvalidInputError):
            index.push("{")
        # A stranger who does not say what it wants holds up nobody.
        half = socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0])))
        half.sendall(b"POST / HTTP/1.1\r\nX-Half:")
        assert request(url, None, TOKEN, method="HEAD")[0] == 200
        start = time.monotonic()
        index.stop()
        assert time.monotonic() - start < 20
        half.close()
        with pytest.raises(OSError):
            urllib.request.urlopen(urllib.request.Request(url, data=body, headers=TOKEN), timeout=5)


def test_other_machines_are_listened_to_when_it_is_said(tmp_path, seaweedfs, monkeypatch):
    (tmp_path / "secret").write_text(SECRET)
    (port,) = servers.free_ports(1)
    options = {"endpoint": seaweedfs, "secret": f"file:{tmp_path}/secret", "fetch": "none"}
    with tarndb.connect(tmp_path / "lake") as lake:
        with pytest.raises(tarndb.InvalidInputError, match="allow_remote"):
            lake.create_metadata_index("photos", "s3://lake", events=f"http://0.0.0.0:{port}/x", options=options)
        assert lake.sql("SHOW METADATA INDEXES").fetchall() == []
        options |= {"allow_remote": "true", "secret": "env:SECRET_OF_EVENTS"}
        with pytest.raises(tarndb.InvalidInputError, match="SECRET_OF_EVENTS"):
            lake.create_metadata_index("photos", "s3://lake", events=f"http://0.0.0.0:{port}/x", options=options)
        monkeypatch.setenv("SECRET_OF_EVENTS", SECRET)
        index = lake.create_metadata_index("photos", "s3://lake", events=f"http://0.0.0.0:{port}/x", options=options)
        url, body = f"http://127.0.0.1:{port}/x", (SAMPLES / "s3.json").read_bytes()
        assert request(url, body)[0] == 401
        signature = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        assert request(url, body, {"X-Hub-Signature-256": signature})[0] == 200
        # As CloudEvents ask whether they may be sent.
        asked = urllib.request.Request(url, headers={"WebHook-Request-Origin": "events.example"} | TOKEN, method="OPTIONS")
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert answer.status == 200 and answer.headers["WebHook-Allowed-Origin"] == "events.example"
        index.stop()
