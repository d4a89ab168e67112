"""Real stores and queues, started for the tests on free ports of the loopback address."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3

REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": REGION}


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def client(service: str, endpoint: str):
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        pass
    except OSError:
        return False
    return True


@contextlib.contextmanager
def server(command: list[str], endpoint: str, log: Path, folder: Path | None = None):
    """A server until the end of the block, started in a folder. One that does not come up fails the test."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env={**os.environ, **CREDENTIALS}, stdout=output, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + 120
            while not answers(endpoint):
                assert process.poll() is None and time.monotonic() < end, log.read_text(errors="replace")[-4000:]
                time.sleep(0.05)
            yield endpoint
        finally:
            process.kill()
            process.wait()


def moto(folder: Path):
    """S3 and SQS as AWS speaks them."""
    (port,) = free_ports(1)
    command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    return server(command, f"http://127.0.0.1:{port}", folder / "moto.log")


def seaweedfs(folder: Path, webhook: str | None = None, token: str = ""):
    """A store with the protocol of S3, with a bucket `lake`. It tells a webhook of all that happens."""
    names = ["master.port", "filer.port", "volume.port", "s3.port", "webdav.port", "admin.port", "metricsPort"]
    names += ["master.port.grpc", "filer.port.grpc", "volume.port.grpc", "s3.port.grpc", "admin.port.grpc"]
    names += ["s3.port.iceberg", "s3.port.lance", "debug.port"]
    ports = dict(zip(names, free_ports(len(names))))
    data = folder / "seaweedfs"
    data.mkdir()
    if webhook:
        settings = {"endpoint": webhook, "bearer_token": token, "backoff_seconds": 1, "workers": 5, "buffer_size": 10000}
        lines = ["[notification.webhook]", "enabled = true", *(f"{name} = {json.dumps(value)}" for name, value in settings.items())]
        (folder / "notification.toml").write_text("\n".join(lines))
    command = [str(Path(sys.executable).parent / "weed"), "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-bucket=lake", "-master.telemetry=false", *(f"-{name}={port}" for name, port in ports.items())]
    return server(command, f"http://127.0.0.1:{ports['s3.port']}", folder / "seaweedfs.log", folder)
