"""Metadata indexes of containers of Azure and buckets of Google, as their servers speak: neither has one on PyPI that does.

Azure's is answered by `Container`, with the parts of the protocol that are used; Google's protocol of requests in XML is that of S3 but
for the names of headers, so that moto answers it.
"""

import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import threading
import time
import urllib.parse
from xml.sax.saxutils import escape

import pytest

import servers
import tarndb

ACCOUNT, KEY = "lake0account", base64.b64encode(b"a key that nobody guesses").decode()
MODIFIED = "Wed, 04 Mar 2026 10:00:00 GMT"


class Container(http.server.BaseHTTPRequestHandler):
    """A container of blobs, which asks for signatures with the account's key and lists some at a time."""

    protocol_version = "HTTP/1.1"
    blobs: dict[str, tuple[bytes, dict[str, str]]] = {}
    # Of which it does not say what they are.
    odd: dict[str, int] = {}
    listings = 0

    def is_signed(self, url: urllib.parse.ParseResult) -> bool:
        """As Azure says that a request is signed with a shared key; names of headers that are not sent are empty."""
        names = "content-encoding content-language content-length content-md5 content-type date"
        names += " if-modified-since if-match if-none-match if-unmodified-since range"
        given = {name.lower(): value for name, value in self.headers.items()}
        own = sorted(f"{name}:{value}" for name, value in given.items() if name.startswith("x-ms-"))
        query = sorted(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        resource = [f"/{ACCOUNT}{url.path}", *(f"{name}:{value}" for name, value in query)]
        length = given.get("content-length", "")
        values = [given.get(name, "") if name != "content-length" or length != "0" else "" for name in names.split()]
        text = "\n".join([self.command, *values, *own, *resource])
        signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)).decode()
        return self.headers.get("Authorization") == f"SharedKey {ACCOUNT}:{signature}"

    def answer(self, status: int, body: bytes, headers: dict[str, str | None]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        url = urllib.parse.urlparse(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        _, container, name = (urllib.parse.unquote(url.path) + "/").split("/", 2)
        if not self.is_signed(url):
            return self.answer(403, b"", {})
        if query.get("comp") == "list":
            return self.answer(200, self.listing(query), {"Content-Type": "application/xml"})
        if container != "photos" or name[:-1] not in self.blobs:
            return self.answer(404, b"", {})
        content, metadata = self.blobs[name[:-1]]
        headers = {"ETag": f'"{tag(content)}"', "Last-Modified": MODIFIED, "Content-Type": "text/plain", "x-ms-blob-type": "BlockBlob"}
        headers |= {f"x-ms-meta-{name}": value for name, value in metadata.items()}
        if (status := self.odd.get(name[:-1])) and self.command == "HEAD":
            return self.answer(status, b"", headers | {"Content-Length": None})
        wanted = self.headers.get("x-ms-range") or self.headers.get("Range")
        if not wanted:
            return self.answer(200, content, headers)
        start, end = (int(part) for part in wanted.removeprefix("bytes=").split("-"))
        part = content[start : end + 1]
        headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
        self.answer(206, part, headers)

    do_HEAD = do_GET

    def listing(self, query: dict[str, str]) -> bytes:
        names = sorted(name for name in self.blobs if name.startswith(query.get("prefix", "")) and name >= query.get("marker", ""))
        type(self).listings += 1
        told = "".join(
            f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{MODIFIED}</Last-Modified><Etag>{tag(self.blobs[name][0])}</Etag>"
            f"<Content-Length>{len(self.blobs[name][0])}</Content-Length><Content-Type>text/plain</Content-Type></Properties></Blob>"
            for name in names[:7]
        )
        rest = f"<NextMarker>{escape(names[7])}</NextMarker>" if len(names) > 7 else "<NextMarker/>"
        return f'<?xml version="1.0"?><EnumerationResults><Blobs>{told}</Blobs>{rest}</EnumerationResults>'.encode()

    def log_message(self, *arguments) -> None:
        pass


def tag(content: bytes) -> str:
    return f"0x{hashlib.md5(content).hexdigest()[:15].upper()}"


@contextlib.contextmanager
def azure():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Container)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def created(name: str, content: bytes) -> dict:
    """As Event Grid tells of a blob."""
    data = {"api": "PutBlob", "eTag": tag(content), "contentLength": len(content), "contentType": "text/plain", "blobType": "BlockBlob"}
    data |= {"url": f"https://{ACCOUNT}.blob.core.windows.net/photos/{name}", "sequencer": "00000000000004420000000000028963"}
    event = {"id": "1", "subject": f"/blobServices/default/containers/photos/blobs/{name}", "data": data}
    return event | {"eventType": "Microsoft.Storage.BlobCreated", "eventTime": "2026-03-04T10:00:00Z", "topic": "/subscriptions/x"}


def test_containers_of_azure(tmp_path, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    blobs = Container.blobs
    blobs.update({f"img/ü {number}.txt": (b"line\n" * number, {"colour": f"red{number % 3}"}) for number in range(20)})
    blobs["other"] = (b"1", {})
    with azure() as endpoint, tarndb.connect(tmp_path / "lake") as lake:
        options = {"endpoint": endpoint, "reconcile_every": "never"}
        index = lake.create_metadata_index("photos", "az://photos/img", options=options, extract=["text"])
        index.stop()
        index.sync()
        assert Container.listings > 3, "in parts"
        inventory = lambda: lake.sql("SELECT key, size, e_tag, user_metadata FROM photos.inventory ORDER BY key").fetchall()
        expected = lambda: sorted(
            (name, len(content), tag(content), metadata) for name, (content, metadata) in blobs.items() if name.startswith("img/")
        )
        assert inventory() == expected()
        lines = lake.sql("SELECT key, text_lines FROM photos.annotations WHERE text_lines > 0").fetchall()
        assert dict(lines) == {f"img/ü {number}.txt": number for number in range(1, 20)}
        blobs["img/told"] = (b"22", {"who": "me"})
        assert index.push(json.dumps([created("img/told", b"22")]))["applied"] == 1
        assert inventory() == expected()
        blobs["img/untold"] = (b"333", {})
        blobs["img/ü 4.txt"] = (b"other", {})
        del blobs["img/ü 3.txt"]
        assert index.reconcile() == {"created": 1, "overwritten": 1, "deleted": 1}
        assert inventory() == expected()
        # Those of which the store does not answer hold up nobody: of these, there is what listings and events tell.
        for name, status in {"img/long": 200, "img/other's": 409, "img/broken": 500}.items():
            Container.odd[name], blobs[name] = status, (b"odd", {})
        blobs["img/new"] = (b"4444", {})
        assert index.reconcile() == {"created": 4, "overwritten": 0, "deleted": 0}
        unknown = lambda rows: [(*row[:3], {} if row[0] in Container.odd else row[3]) for row in rows]
        assert unknown(inventory()) == expected()
        blobs["img/told"], blobs["img/broken"] = (b"told", {}), (b"worse", {})
        events = [created("img/told", b"told"), created("img/broken", b"worse")]
        later = [event | {"data": event["data"] | {"sequencer": "00000000000004420000000000038963"}} for event in events]
        assert index.push(json.dumps(later))["applied"] == 2
        assert unknown(inventory()) == expected()
        assert "cannot be read" in index.status()["last_error"]
        # A store that is busy is asked again, by who hands the event in.
        blobs["img/busy"], Container.odd["img/busy"] = (b"busy", {"who": "me"}), 503
        with pytest.raises(tarndb.Error, match="503"):
            index.push(json.dumps([created("img/busy", b"busy")]))
        del Container.odd["img/busy"]
        assert index.push(json.dumps([created("img/busy", b"busy")]))["applied"] == 1
        assert unknown(inventory()) == expected()
        # With another key nothing is read, and no key is told.
        other = base64.b64encode(b"another key").decode()
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", other)
        with pytest.raises(tarndb.Error) as refused:
            lake.create_metadata_index("refused", "az://photos", options=options)
        assert "403" in str(refused.value) and other not in str(refused.value) and KEY not in str(refused.value)


def test_buckets_of_google(tmp_path, monkeypatch):
    for name, value in servers.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    with servers.moto(tmp_path) as endpoint, tarndb.connect(tmp_path / "lake") as lake:
        s3 = servers.client("s3", endpoint)
        s3.create_bucket(Bucket="photos")
        put = lambda key, content: s3.put_object(Bucket="photos", Key=key, Body=content, ACL="public-read")
        for number in range(20):
            put(f"img/ü {number}.txt", b"line\n" * number)
        put("other", b"1")
        options = {"endpoint": endpoint, "reconcile_every": "never"}
        index = lake.create_metadata_index("photos", "gs://photos/img", options=options, extract=["text"])
        index.stop()
        index.sync()
        sizes = {f"img/ü {number}.txt": 5 * number for number in range(20)}
        inventory = lambda: dict(lake.sql("SELECT key, size FROM photos.inventory").fetchall())
        assert inventory() == sizes
        lines = lake.sql("SELECT key, text_lines FROM photos.annotations WHERE text_lines > 0").fetchall()
        assert dict(lines) == {f"img/ü {number}.txt": number for number in range(1, 20)}
        put("img/untold", b"333")
        put("img/ü 4.txt", b"other content")
        s3.delete_object(Bucket="photos", Key="img/ü 3.txt")
        assert index.reconcile() == {"created": 1, "overwritten": 1, "deleted": 1}
        sizes |= {"img/untold": 3, "img/ü 4.txt": 13}
        del sizes["img/ü 3.txt"]
        assert inventory() == sizes
        # What Google tells through Pub/Sub.
        put("img/told.txt", b"told")
        now = time.strftime("%Y-%m-%dT%H:%M:%S.999Z", time.gmtime())
        digest = base64.b64encode(hashlib.md5(b"told").digest()).decode()
        resource = {"name": "img/told.txt", "bucket": "photos", "generation": "1772619072000001", "metageneration": "1", "size": "4"}
        resource |= {"updated": now, "storageClass": "STANDARD", "md5Hash": digest, "metadata": {"colour": "red"}}
        attributes = {"bucketId": "photos", "objectId": "img/told.txt", "eventType": "OBJECT_FINALIZE", "payloadFormat": "JSON_API_V1"}
        attributes |= {"objectGeneration": "1772619072000001", "eventTime": now}
        data = base64.b64encode(json.dumps(resource).encode()).decode()
        message = json.dumps({"message": {"attributes": attributes, "data": data, "messageId": "1"}, "subscription": "x"})
        assert index.push(message)["applied"] == 1 and index.push(message)["duplicates"] == 1
        assert inventory() == sizes | {"img/told.txt": 4}
        assert index.reconcile() == {"created": 0, "overwritten": 0, "deleted": 0}
