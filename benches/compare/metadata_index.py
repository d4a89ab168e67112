"""A metadata index at many objects: how fast a bucket is listed into it, how fast events come into journal and inventory, how soon, with
how much memory and how many bytes written, and how fast one finds objects in the inventory, beside DuckDB on the same files.

The bucket is a server in this script that answers listings and nothing else; events are S3's, handed in with `push`.

  python metadata_index.py --folder DIR [--objects 10000000] [--batch 25000] [--seconds 60] [--rate 10000] [--rounds 3] [--tagged]

With --tagged, events tell of three tags of each object, and objects are looked for by these, too. What is timed is what passes on the
clock while events are handed in that were made before, whatever else the index does meanwhile; one event in a hundred comes again.

Events over HTTP, at a million objects, from senders in threads beside it:

  python metadata_index.py --folder DIR --only=webhook --objects 1000000

And, alone, what is left to look after when there is a commit each second for --seconds, of ten events among --objects:

  python metadata_index.py --folder DIR --only=upkeep --seconds 3600 --objects 100000
"""

import argparse
import http.client
import http.server
import json
import os
import pathlib
import random
import shutil
import socket
import stat
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse

PAGE = 1000
OBJECT = "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;{:032x}&quot;</ETag><Size>{}</Size><StorageClass>STANDARD</StorageClass></Contents>"
NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def key(number: int) -> str:
    return f"prefix-{number % 1000:03d}/folder-{number // 1000 % 100:02d}/object-{number:010d}.parquet"


class Store(http.server.BaseHTTPRequestHandler):
    """A bucket of as many objects as its name says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urllib.parse.urlparse(self.path)
        query = urllib.parse.parse_qs(url.query, keep_blank_values=True)
        if "versioning" in query:
            body = f"<VersioningConfiguration {NAMESPACE}/>"
        else:
            objects, start = int(url.path.strip("/").split("-")[1]), int(query.get("continuation-token", ["0"])[0])
            end = min(start + PAGE, objects)
            contents = "".join(OBJECT.format(key(number), number, number % 1000) for number in range(start, end))
            more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{end}</NextContinuationToken>"
            body = f"<ListBucketResult {NAMESPACE}>{more if end < objects else '<IsTruncated>false</IsTruncated>'}{contents}</ListBucketResult>"
        content = body.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments) -> None:
        pass


def serve() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store)
    print(server.server_port, flush=True)
    server.serve_forever()


class Events:
    """What happens in a bucket of objects that are created, overwritten and deleted."""

    def __init__(self, tagged: bool = False) -> None:
        self.random, self.changes, self.objects, self.tagged = random.Random(1), 0, 0, tagged
        # Some of the last, which come again.
        self.last: list[str] = []

    def tags(self, number: int) -> str:
        """Three tags, as Ceph's events tell of them: a server that is asked for those of every object would be what is measured."""
        if not self.tagged:
            return ""
        review = "wanted" if number % 100_000 == 7 else "done"
        tags = {"team": f"team-{number * 7919 % 200}", "colour": f"colour-{number % 12}", "review": review}
        return f',"tags":[{",".join(f"""{{"key":"{name}","val":"{value}"}}""" for name, value in tags.items())}]'

    def event(self, number: int, deleted: bool, now: str) -> str:
        self.changes += 1
        sequencer = f"{0x0065E59E00000000 + self.changes:016X}"
        what = "ObjectRemoved:Delete" if deleted else "ObjectCreated:Put"
        state = "" if deleted else f',"size":{self.changes % 100000},"eTag":"{self.changes:032x}"{self.tags(number)}'
        return (
            f'{{"eventVersion":"2.6","eventSource":"aws:s3","awsRegion":"eu-west-1","eventTime":"{now}","eventName":"{what}",'
            '"userIdentity":{"principalId":"AWS:AIDAEXAMPLE1"},"requestParameters":{"sourceIPAddress":"203.0.113.9"},'
            '"responseElements":{"x-amz-request-id":"C3D13FE58DE4C810","x-amz-id-2":"FMyUVU/abc="},'
            '"s3":{"s3SchemaVersion":"1.0","configurationId":"to-indexer","bucket":{"name":"bench-0","arn":"arn:aws:s3:::bench-0"},'
            f'"object":{{"key":"{urllib.parse.quote(key(number))}","sequencer":"{sequencer}"{state}}}}}}}'
        )

    def batch(self, count: int, creates: float, repeats: float = 0.0) -> str:
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        events = []
        for _ in range(count):
            if self.last and self.random.random() < repeats:
                events.append(self.random.choice(self.last))
            elif self.random.random() < creates or not self.objects:
                events.append(self.event(self.objects, False, now))
                self.objects += 1
            else:
                events.append(self.event(self.random.randrange(self.objects), self.random.random() < 0.2, now))
        self.last = self.random.sample(events, min(count, 1000))
        return f'{{"Records":[{",".join(events)}]}}'


def written() -> int:
    return int(next(line.split()[1] for line in pathlib.Path("/proc/self/io").read_text().splitlines() if line.startswith("wchar")))


def memory(what: str) -> float:
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in status if line.startswith(what))) / 1024


def told_memory() -> str:
    return f"{memory('VmRSS'):.0f} MiB of memory, {memory('RssFile'):.0f} of which are programs, peak {memory('VmHWM'):.0f} MiB"


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def index(lake, name: str, bucket: str, endpoint: str):
    options = {"endpoint": endpoint, "region": "x", "fetch": "none", "reconcile_every": "never"}
    # What comes from now on is handed in.
    return lake.create_metadata_index(name, f"s3://{bucket}", options=options)


def backfill(folder: pathlib.Path, endpoint: str, objects: int) -> None:
    """In a process of its own: what it needs of memory is its own."""
    import tarndb

    with tarndb.connect(folder / "backfill") as lake:
        start = time.perf_counter()
        index(lake, "listed", f"bench-{objects}", endpoint)
        took = time.perf_counter() - start
        assert lake.sql("SELECT count(*) FROM listed.inventory").fetchall() == [(objects,)]
        print(f"backfill of {objects:,} objects: {objects / took:,.0f} objects/s, peak {memory('VmHWM'):.0f} MiB", flush=True)


def plain_listing(endpoint: str, objects: int) -> float:
    start = time.perf_counter()
    token, seen = "0", 0
    import urllib.request

    while True:
        with urllib.request.urlopen(f"{endpoint}/bench-{objects}?list-type=2&continuation-token={token}") as page:
            content = page.read()
        seen += content.count(b"<Key>")
        if b"<NextContinuationToken>" not in content:
            break
        token = content.split(b"<NextContinuationToken>")[1].split(b"<")[0].decode()
    assert seen == objects
    return objects / (time.perf_counter() - start)


def events(folder: pathlib.Path, endpoint: str, objects: int, batch: int, seconds: int, rate: int, tagged: bool) -> None:
    import tarndb

    Events(tagged).batch(batch, 1.0)
    print(
        f"before the index: {memory('VmRSS'):.0f} MiB, peak {memory('VmHWM'):.0f} MiB, for Python and a batch of messages;"
        f" {memory('RssFile'):.0f} MiB of these are programs, not data",
        flush=True,
    )
    with tarndb.connect(folder / "events") as lake:
        ix, source = index(lake, "bench", "bench-0", endpoint), Events(tagged)
        filled = 0.0
        while source.objects < objects:
            message = source.batch(batch, 1.0)
            start = time.perf_counter()
            ix.push(message)
            filled += time.perf_counter() - start
        print(f"{objects:,} objects created by events: {objects / filled:,.0f} events/s, {told_memory()}", flush=True)
        # A tenth of what happens is new, the rest overwrites and deletes. Messages are made before, and wait on disk, for the memory that
        # is told is to be the index's, and so is the time that passes.
        messages = folder / "messages"
        messages.mkdir(exist_ok=True)

        def make(count: int, events: int) -> None:
            for number in range(count):
                (messages / str(number)).write_text(source.batch(events, 0.1, 0.01))
            os.sync()

        batches = seconds * 50_000 // batch
        make(batches, batch)
        took, before, start = [], written(), time.perf_counter()
        for number in range(batches):
            begun = time.perf_counter()
            ix.push((messages / str(number)).read_text())
            took.append(time.perf_counter() - begun)
        taken, count = time.perf_counter() - start, batches * batch
        print(
            f"mixed events at {objects:,} objects: {count / taken:,.0f} events/s in {taken:.0f} s (a batch: median"
            f" {statistics.median(took):.2f} s, slowest {max(took):.2f} s), {(written() - before) / count:,.0f} bytes written per event",
            flush=True,
        )
        # Freshness: each tenth of a second, a tenth of what comes in a second; what comes while another is committed waits.
        count = seconds * 10
        make(count, rate // 10)
        fresh, due = [], time.perf_counter()
        waiting: list[tuple[float, str]] = []
        arrived = 0
        while arrived < count or waiting:
            now = time.perf_counter()
            while arrived < count and due + arrived * 0.1 <= now:
                waiting.append((due + arrived * 0.1, (messages / str(arrived)).read_text()))
                arrived += 1
            if not waiting:
                time.sleep(max(0.0, due + arrived * 0.1 - now))
                continue
            taken_now, waiting = waiting, []
            records = ",".join(message[len('{"Records":[') : -2] for _, message in taken_now)
            ix.push(f'{{"Records":[{records}]}}')
            done = time.perf_counter()
            fresh += [done - came for came, _ in taken_now]
        print(
            f"freshness at {rate:,} events/s: p50 {percentile(fresh, 0.5) * 1000:.0f} ms, p99 {percentile(fresh, 0.99) * 1000:.0f} ms,"
            f" slowest {max(fresh) * 1000:.0f} ms; {told_memory()}",
            flush=True,
        )
        # Nothing happens for a while, and what is left in small files is put in order.
        files = lambda: lake.sql('SELECT count(*) FROM bench."inventory$files" WHERE content = 0').fetchall()[0][0]
        location = lambda: lake.table("bench.inventory").metadata_location
        for name, condition in conditions(objects, tagged).items():
            times = []
            for _ in range(20):
                start = time.perf_counter()
                lake.sql(f"SELECT key, size, e_tag FROM bench.inventory WHERE {condition}").fetchall()
                times.append(time.perf_counter() - start)
            print(f"as events leave it, warm, {name}: {statistics.median(times) * 1000:.1f} ms in {files()} data files", flush=True)
        busy, start, before = files(), time.perf_counter(), None
        while before != (before := location()):
            time.sleep(90)
        print(
            f"the inventory has {busy} data files while events come, and {files()} after {time.perf_counter() - start:.0f} s without;"
            f" {told_memory()}",
            flush=True,
        )
        start = time.perf_counter()
        live = lake.sql("SELECT count(*), count(DISTINCT key) FROM bench.inventory").fetchall()
        journal = lake.sql("SELECT count(*) FROM bench.journal").fetchall()
        assert live[0][0] == live[0][1] and journal == [(source.changes,)], (live, journal, source.changes)
        print(f"checked: {live[0][0]:,} objects, {journal[0][0]:,} changes, {time.perf_counter() - start:.1f} s", flush=True)
        found = {"metadata": location(), "objects": objects, "tagged": tagged}
        (folder / "found.json").write_text(json.dumps(found))


def size_of(path: pathlib.Path) -> int | None:
    """The size of a file; nothing of what is none, or went since it was listed."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def upkeep(folder: pathlib.Path, endpoint: str, objects: int, seconds: int) -> None:
    import tarndb

    lake_folder = folder / "upkeep"
    with tarndb.connect(lake_folder) as lake:
        ix, source, took = index(lake, "bench", "bench-0", endpoint), Events(), []
        ix.push(source.batch(objects, 1.0))
        start = time.perf_counter()
        for second in range(1, seconds + 1):
            begun = time.perf_counter()
            ix.push(source.batch(10, 0.1))
            took.append(time.perf_counter() - begun)
            if second % max(1, seconds // 12) == 0:
                number = lambda what: lake.sql(f"SELECT count(*) FROM bench.{what}").fetchall()[0][0]
                told = [
                    f"{table}: {number(chr(34) + table + '$files' + chr(34))} files, {number(chr(34) + table + '$snapshots' + chr(34))} snapshots"
                    for table in ["journal", "inventory"]
                ]
                sizes = [size for size in map(size_of, lake_folder.rglob("*")) if size is not None]
                print(
                    f"after {second:,} commits: {'; '.join(told)}; {len(sizes):,} files on disk, {sum(sizes) / 2**20:.0f} MiB;"
                    f" a commit takes {statistics.median(took) * 1000:.0f} ms; {memory('VmRSS'):.0f} MiB of memory",
                    flush=True,
                )
                took = []
            time.sleep(max(0.0, start + second - time.perf_counter()))


def send(port: int, bodies: list[bytes], senders: int) -> None:
    """From as many senders at once, each of which waits for its answer, and sends again what was not taken."""
    rest, lock = iter(bodies), threading.Lock()
    headers = {"Authorization": f"Bearer {os.environ['BENCH_TOKEN']}", "Content-Type": "application/json"}

    def sender() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while True:
            with lock:
                body = next(rest, None)
            if body is None:
                return
            while True:
                connection.request("POST", "/bench", body, headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    break
                assert answer.status == 503, answer.status
                time.sleep(0.2)

    threads = [threading.Thread(target=sender) for _ in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def webhook(folder: pathlib.Path, endpoint: str, objects: int) -> None:
    import tarndb

    os.environ["BENCH_TOKEN"] = "what only senders know"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tarndb.connect(folder / "webhook") as lake:
        options = {"endpoint": endpoint, "region": "x", "fetch": "none", "reconcile_every": "never", "secret": "env:BENCH_TOKEN"}
        ix = lake.create_metadata_index("bench", "s3://bench-0", events=f"http://127.0.0.1:{port}/bench", options=options)
        source = Events()
        while source.objects < objects:
            ix.push(source.batch(25_000, 1.0))
        for events, messages in [(1, 15_000), (100, 4_000)]:
            bodies, senders = [source.batch(events, 0.1, 0.01).encode() for _ in range(messages)], 64
            start = time.perf_counter()
            send(port, bodies, senders)
            took = time.perf_counter() - start
            print(
                f"{senders} senders through the webhook at {objects:,} objects, {events} events a message: {messages / took:,.0f}"
                f" messages/s, {messages * events / took:,.0f} events/s",
                flush=True,
            )
        assert lake.sql("SELECT count(*) FROM bench.journal").fetchall() == [(source.changes,)]


def followed(folder: pathlib.Path) -> None:
    """How soon after it happened a change of a folder is in both tables: a file that is created, overwritten, renamed, deleted."""
    import tarndb

    docs, fresh = folder / "followed" / "docs", []
    docs.mkdir(parents=True)
    for number in range(10_000):
        (docs / f"{number}.txt").write_text("x")
    with tarndb.connect(folder / "followed" / "lake") as lake:
        lake.create_metadata_index("docs", str(docs))
        answer = lambda sql: lake.sql(sql).fetchall()
        for turn in range(200):
            changes, file = answer("SELECT count(*) FROM docs.journal")[0][0] + 1, docs / f"{turn // 4}.new"
            start = time.perf_counter()
            match turn % 4:
                case 0:
                    file.write_text("x")
                    size = 1
                case 1:
                    file.write_text("xx")
                    size = 2
                case 2:
                    # One goes, and another comes.
                    file = file.rename(file.with_suffix(".renamed"))
                    size, changes = 2, changes + 1
                case 3:
                    file = file.with_suffix(".renamed")
                    file.unlink()
                    size = None
            wanted = [] if size is None else [(size,)]
            while answer(f"SELECT size FROM docs.inventory WHERE key = '{file.name}'") != wanted or (
                answer("SELECT count(*) FROM docs.journal")[0][0] < changes
            ):
                time.sleep(0.005)
            fresh.append(time.perf_counter() - start)
    print(
        f"a change of a folder of 10,000 files is seen after: p50 {percentile(fresh, 0.5) * 1000:.0f} ms,"
        f" p99 {percentile(fresh, 0.99) * 1000:.0f} ms, slowest {max(fresh) * 1000:.0f} ms",
        flush=True,
    )


TARNDB = """
import tarndb
lake = tarndb.connect(f"{folder}/events")
def query(condition):
    return lake.sql(f"SELECT key, size, e_tag FROM bench.inventory WHERE {condition}").fetchall()
lake.sql("SELECT 1").fetchall()
"""
DUCKDB = """
import duckdb, duckdb_extensions
connection = duckdb.connect()
for extension in ("avro", "iceberg"):
    duckdb_extensions.import_extension(extension, con=connection)
    connection.load_extension(extension)
def query(condition):
    return connection.sql(f"SELECT key, size, e_tag FROM iceberg_scan('{metadata}') WHERE {condition}").fetchall()
connection.sql("SELECT 1").fetchall()
"""
LOOKUP = """
import json, sys, time
folder, metadata, condition, repeats = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
{engine}
times = []
for _ in range(repeats):
    start = time.perf_counter()
    rows = query(condition)
    times.append(time.perf_counter() - start)
print(json.dumps({{"times": times, "rows": sorted(map(list, rows))}}))
"""


def conditions(objects: int, tagged: bool) -> dict[str, str]:
    """What is looked for: an object, the objects of a folder, and of one with a hundred of them, and those of some tags."""
    wanted = key(objects // 3)
    folder, _ = wanted.rsplit("/", 1)
    above, _ = folder.rsplit("/", 1)
    found = {"by key": f"key = '{wanted}'"}
    found |= {"by prefix": f"starts_with(key, '{folder}/')", "by a short prefix": f"starts_with(key, '{above}/')"}
    if tagged:
        found["by a tag"] = "object_tags['review'] = 'wanted'"
        found["by two tags"] = "object_tags['team'] = 'team-17' AND object_tags['colour'] = 'colour-7'"
    return found


def lookups(folder: pathlib.Path, rounds: int) -> None:
    found = json.loads((folder / "found.json").read_text())
    for name, condition in conditions(found["objects"], found["tagged"]).items():
        results: dict[str, list[dict]] = {"tarndb": [], "DuckDB": []}
        for _ in range(rounds):
            for engine, code, repeats in [("tarndb", TARNDB, 20), ("DuckDB", DUCKDB, 5)]:
                command = [sys.executable, "-c", LOOKUP.format(engine=code), str(folder), found["metadata"], condition, str(repeats)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    sys.exit(done.stderr)
                results[engine].append(json.loads(done.stdout))
        assert len({json.dumps(result["rows"]) for of in results.values() for result in of}) == 1, "the answers differ"
        cold = {engine: statistics.median(result["times"][0] for result in of) for engine, of in results.items()}
        warm = {engine: statistics.median(time for result in of for time in result["times"][1:]) for engine, of in results.items()}
        rows = len(results["tarndb"][0]["rows"])
        for what, times in [("cold", cold), ("warm", warm)]:
            ratio = times["tarndb"] / times["DuckDB"]
            print(f"{name}, {rows} rows, {what}: {times['tarndb'] * 1000:.1f} ms, DuckDB {times['DuckDB'] * 1000:.1f} ms, ratio {ratio:.3f}", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--folder", type=pathlib.Path, required=True)
    arguments.add_argument("--objects", type=int, default=10_000_000)
    arguments.add_argument("--listed", type=int, default=1_000_000)
    arguments.add_argument("--batch", type=int, default=25_000)
    arguments.add_argument("--seconds", type=int, default=60)
    arguments.add_argument("--rate", type=int, default=10_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--tagged", action="store_true")
    arguments.add_argument("--only", choices=["serve", "backfill", "followed", "events", "webhook", "upkeep", "lookups"])
    arguments.add_argument("--endpoint")
    options = arguments.parse_args()
    folder = (options.folder / "metadata-index").resolve()
    os.environ.update(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")
    if options.only == "serve":
        return serve()
    if options.endpoint:
        match options.only:
            case "backfill":
                return backfill(folder, options.endpoint, options.listed)
            case "followed":
                return followed(folder)
            case "events":
                return events(folder, options.endpoint, options.objects, options.batch, options.seconds, options.rate, options.tagged)
            case "webhook":
                return webhook(folder, options.endpoint, options.objects)
            case "upkeep":
                return upkeep(folder, options.endpoint, options.objects, options.seconds)
            case "lookups":
                return lookups(folder, options.rounds)
    # Each in a process of its own.
    parts = [options.only] if options.only else ["backfill", "followed", "events", "lookups"]
    for part in parts:
        shutil.rmtree(folder / part, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    same = [f"--{name}={getattr(options, name)}" for name in ["folder", "objects", "listed", "batch", "seconds", "rate", "rounds"]]
    same += ["--tagged"] * options.tagged
    with subprocess.Popen([sys.executable, __file__, "--only=serve", *same], stdout=subprocess.PIPE, text=True) as server:
        try:
            endpoint = f"http://127.0.0.1:{server.stdout.readline().strip()}"
            if "backfill" in parts:
                print(f"the same listing, read and thrown away by Python: {plain_listing(endpoint, options.listed):,.0f} objects/s", flush=True)
            for part in parts:
                subprocess.run([sys.executable, __file__, f"--only={part}", f"--endpoint={endpoint}", *same], check=True)
        finally:
            server.kill()


if __name__ == "__main__":
    main()
