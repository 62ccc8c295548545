"""What a laptop needs to play cluster: a bucket that fails on purpose, and a network that nobody else hears.

The bucket lies in memory and answers on loopback, to what stages ask of S3, Google's and Azure's stores. Each creates
only what is not there yet by a condition of its own: `If-None-Match: *` (S3 answers 412 to who comes second, Azure
409), `x-goog-if-generation-match: 0` (412). Some requests are answered with 503, by chance from a seed. Gives up: keys
(all are good), objects in parts, everything that is not needed here. Taught by notebooks/70_scaling.ipynb.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

ACCOUNT = "devstoreaccount1"
"""Azure's emulators' own; its key is public and known to every client."""
_DATE = formatdate(0, usegmt=True)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"

    def do(self) -> None:
        bucket: Bucket = self.server.bucket
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        url = urlsplit(self.path)
        azure, path = f"/{ACCOUNT}/" in url.path, unquote(url.path).replace(f"/{ACCOUNT}/", "/", 1)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        looking = self.command in ("GET", "HEAD")
        with bucket.lock:
            bucket.requests += 1
            if bucket.random.random() < bucket.failing:
                bucket.failed += 1
                return self.answer(503, b"<Error><Code>SlowDown</Code></Error>")
            if looking and ("list-type" in query or query.get("comp") == "list"):
                return self.answer(200, bucket.listing(path, query.get("prefix", ""), azure))
            if looking:
                return self.get(bucket, path)
            copied = any(name.lower().endswith("-copy-source") for name in self.headers)
            if self.command == "PUT" and not copied and not {"comp", "uploadId"} & query.keys():
                return self.put(bucket, path, body, azure)
            bucket.refused.append(f"{self.command} {self.path}")
            return self.answer(400, b"<Error><Code>NotImplemented</Code></Error>")

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = do

    def put(self, bucket: Bucket, path: str, body: bytes, azure: bool) -> None:
        create = self.headers.get("if-none-match") == "*" or self.headers.get("x-goog-if-generation-match") == "0"
        if create and path in bucket.objects:
            return self.answer(409 if azure else 412, b"<Error><Code>PreconditionFailed</Code></Error>")
        if not create:
            bucket.written_over.append(path)
        bucket.objects[path] = body
        return self.answer(201 if azure else 200, b"", body)

    def get(self, bucket: Bucket, path: str) -> None:
        whole = bucket.objects.get(path)
        if whole is None:
            return self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range") or self.headers.get("x-ms-range") or "")
        if not asked:
            return self.answer(200, whole, whole)
        start, last = int(asked[1]), min(int(asked[2] or len(whole)), len(whole) - 1)
        bucket.ranges.append((path, start, last + 1))
        return self.answer(206, whole[start : last + 1], whole, f"bytes {start}-{last}/{len(whole)}")

    def answer(self, status: int, data: bytes, content: bytes | None = None, part: str = "") -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(data)))
        if content is not None:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Last-Modified", _DATE)
        if part:
            self.send_header("Content-Range", part)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Quiet."""


class _Server(ThreadingHTTPServer):
    """Says nothing of clients that were killed while they asked; of everything else it does."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Print the error, unless the other end of the connection is gone."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Bucket:
    """The objects, and what became of the requests."""

    def __init__(self, failing: float = 0.0, seed: int = 0) -> None:
        """Start to answer.

        Args:
            failing: share of requests that are answered with 503.
            seed: of which ones.
        """
        self.objects: dict[str, bytes] = {}
        """`/bucket/name` -> content."""
        self.failing, self.random, self.lock = failing, random.Random(seed), threading.Lock()
        self.requests = self.failed = 0
        self.refused: list[str] = []
        """Requests to delete, to copy (and so rename), to write in parts: no stage sends any."""
        self.written_over: list[str] = []
        """Writes without a condition."""
        self.ranges: list[tuple[str, int, int]] = []
        """Object, first byte and the one behind the last of reads of a part."""
        self.server = _Server(("127.0.0.1", 0), _Handler)
        self.server.bucket = self
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use it, as `s3://`, `gs://` or `az://`."""
        address = f"http://127.0.0.1:{self.server.server_port}"
        google = {"gcs_base_url": address, "disable_oauth": True, "client_email": "", "private_key": ""}
        return {
            "AWS_ENDPOINT_URL": address,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_REGION": "us-east-1",
            "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps({**google, "private_key_id": ""}),
            "GOOGLE_ALLOW_HTTP": "true",
            "AZURE_STORAGE_USE_EMULATOR": "true",
            "AZURITE_BLOB_STORAGE_URL": address,
            "AZURE_ALLOW_HTTP": "true",
        }

    def below(self, folder: str) -> dict[str, bytes]:
        """Everything in a folder, `bucket/name`, by its path there."""
        start = f"/{folder}/"
        with self.lock:
            return {name.removeprefix(start): data for name, data in self.objects.items() if name.startswith(start)}

    def listing(self, path: str, prefix: str, azure: bool) -> bytes:
        """The answer to a listing of a bucket."""
        bucket = f"/{path.strip('/')}/"
        sizes = {n.removeprefix(bucket): len(data) for n, data in self.objects.items() if n.startswith(bucket + prefix)}
        if azure:
            row = (
                "<Blob><Name>{}</Name><Properties><Last-Modified>{}</Last-Modified><Content-Length>{}</Content-Length>"
                "<Content-Type>application/octet-stream</Content-Type><Etag>x</Etag></Properties></Blob>"
            )
            rows = "".join(row.format(escape(name), _DATE, sizes[name]) for name in sorted(sizes))
            return f"<EnumerationResults><Blobs>{rows}</Blobs><NextMarker/></EnumerationResults>".encode()
        row = (
            "<Contents><Key>{}</Key><LastModified>1970-01-01T00:00:00.000Z</LastModified><ETag>x</ETag><Size>{}</Size>"
            "</Contents>"
        )
        rows = "".join(row.format(escape(name), sizes[name]) for name in sorted(sizes))
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()

    def close(self) -> None:
        """Stop to answer."""
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def faulty_bucket(failing: float = 0.2, seed: int = 0) -> Iterator[Bucket]:
    """A bucket for as long as the block lasts."""
    made = Bucket(failing, seed)
    try:
        yield made
    finally:
        made.close()


def unheard(command: Sequence[object]) -> list[str]:
    """A command that runs in a network of its own with only loopback up, where this system lets it; else as it is.

    Ray answers on the machine's own address, which no setting changes: so nobody outside can reach it.
    """
    words = [str(word) for word in command]
    alone = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if shutil.which("unshare") is None or os.name == "nt":
        return words
    can = subprocess.run([*alone, "true"], capture_output=True).returncode == 0
    return [*alone, *words] if can else words
