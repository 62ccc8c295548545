"""An S3 server on loopback (moto's) behind a proxy that breaks requests on purpose.

Faults come by chance from a seed, at most `budget` of them, so that every test ends. Each is one that real stores have:

`busy` 503 · `many` 429 · `slow` a pause · `cut` the answer's body ends in the middle · `lost` the request is done, its
answer never comes · `forget` a write is confirmed and not done · `expired` 400 ExpiredToken · `refuse` 403 ·
`skewed` 403 RequestTimeTooSkewed ·
`conflict` 409 · `blind` a listing without any object
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ANSWERS = {
    "busy": (503, "SlowDown"),
    "many": (429, "TooManyRequests"),
    "expired": (400, "ExpiredToken"),
    "refuse": (403, "AccessDenied"),
    "skewed": (403, "RequestTimeTooSkewed"),
    "conflict": (409, "ConditionalRequestConflict"),
}
ONLY = {"forget": ("PUT",), "conflict": ("PUT",), "cut": ("GET",)}
FAULTS = ("busy", "many", "slow", "cut", "lost", "forget", "conflict")


class Faults:
    """Which fault the next request meets."""

    def __init__(self, kinds: Sequence[str] = (), rate: float = 0.3, budget: int = 50, seed: int = 0) -> None:
        self.kinds, self.rate, self.budget = tuple(kinds), rate, budget
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.done: Counter = Counter()
        self.requests: Counter = Counter()
        self.deny: Callable[[BaseHTTPRequestHandler], str | None] = lambda request: None
        """A test's own rule; the name of a fault, or None."""

    def next(self, request: BaseHTTPRequestHandler) -> str | None:
        """The fault of a request, None if it is served."""
        method = request.command
        with self.lock:
            self.requests[method] += 1
            fault = self.deny(request)
            if fault is None and self.kinds and self.done.total() < self.budget and self.random.random() < self.rate:
                fault = self.random.choice(self.kinds)
                if method not in ONLY.get(fault, (method,)):
                    fault = None
            if fault:
                self.done[fault] += 1
            return fault


class Handler(BaseHTTPRequestHandler):
    """Hands a request on, or breaks it."""

    protocol_version = "HTTP/1.1"
    timeout = 30

    def do(self) -> None:
        server: FaultyStore = self.server.store
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length) if length else b""
        if self.command in ("DELETE", "POST") or self.headers.get("x-amz-copy-source"):
            server.forbidden.append(f"{self.command} {self.path}")
        fault = server.faults.next(self)
        if fault in ANSWERS:
            status, code = ANSWERS[fault]
            return self.answer(status, {}, f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode())
        if fault == "slow":
            time.sleep(0.2)
        if fault == "blind":  # as a store whose listings come late
            name = "<Name>bucket</Name><KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>"
            xml = "http://s3.amazonaws.com/doc/2006-03-01/"
            return self.answer(200, {}, f'<ListBucketResult xmlns="{xml}">{name}</ListBucketResult>'.encode())
        if fault == "forget":
            return self.answer(200, {"ETag": '"0123456789abcdef0123456789abcdef"'}, b"")
        status, headers, data = server.ask(self.command, self.path, body, self.headers)
        if fault == "lost":
            self.close_connection = True
            return self.connection.close()
        self.answer(status, headers, data, cut=fault == "cut" and len(data) > 1)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = do

    def answer(self, status: int, headers: dict, data: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        told = {name.lower(): value for name, value in headers.items()}.get("content-length")
        size = told if self.command == "HEAD" and told else len(data)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Quiet."""


class FaultyStore:
    """The server, its proxy, and what became of the requests."""

    def __init__(self) -> None:
        moto = pytest.importorskip("moto.server", reason="moto's server is not installed (extra dev)")
        pytest.importorskip("obstore", reason="the extra 'scale' is not installed")
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.moto = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.moto.start()
        self.faults = Faults()
        self.forbidden: list[str] = []
        """Requests that no stage may send: to copy (and so rename), to delete, to write in parts."""
        self.proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.proxy.store, self.proxy.daemon_threads = self, True
        threading.Thread(target=self.proxy.serve_forever, args=(0.05,), daemon=True).start()
        self.ask("POST", "/moto-api/reset", b"", {})  # moto keeps one state a process
        self.ask("PUT", "/bucket", b"", {})

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use the bucket through the proxy."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.proxy.server_port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
            "AWS_REGION": "us-east-1",
            "AWS_METADATA_ENDPOINT": "http://127.0.0.1:9",  # nobody: no test asks the machine it runs on for a role
        }

    def ask(self, method: str, path: str, body: bytes, headers) -> tuple[int, dict, bytes]:
        """One request to the server behind."""
        host, port = self.moto.get_host_and_port()
        connection = http.client.HTTPConnection("127.0.0.1" if host == "0.0.0.0" else host, port, timeout=30)
        try:
            kept = {k: v for k, v in headers.items() if k.lower() not in ("connection", "content-length", "expect")}
            connection.request(method, path, body, kept)
            found = connection.getresponse()
            return found.status, dict(found.getheaders()), found.read()
        finally:
            connection.close()

    @functools.cached_property
    def client(self) -> Any:
        """boto3's, which asks the server behind without the proxy."""
        import boto3

        _, port = self.moto.get_host_and_port()
        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="x",
        )

    def objects(self, folder: str) -> dict[str, bytes]:
        """Everything below a folder of the bucket."""
        listed = self.client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=f"{folder}/")
        keys = [item["Key"] for page in listed for item in page.get("Contents", [])]
        return {
            key.removeprefix(f"{folder}/"): self.client.get_object(Bucket="bucket", Key=key)["Body"].read()
            for key in keys
        }

    def lose(self, key: str) -> None:
        """Forget an object that is there."""
        self.client.head_object(Bucket="bucket", Key=key)
        self.client.delete_object(Bucket="bucket", Key=key)

    def close(self) -> None:
        """Stop both servers."""
        self.proxy.shutdown()
        self.proxy.server_close()
        self.moto.stop()


@contextlib.contextmanager
def faulty_store() -> Iterator[FaultyStore]:
    """A store for the length of a test."""
    store = FaultyStore()
    try:
        yield store
    finally:
        store.close()


class _Quiet(SimpleHTTPRequestHandler):
    missing = 404

    def send_error(self, code: int, *args: object) -> None:
        super().send_error(self.missing if code == 404 else code, *args)

    def log_message(self, *args: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def served(folder: Path, missing: int = 404) -> Iterator[str]:
    """The address of a plain web server of a folder's files.

    Args:
        missing: how it answers where there is no such file; networks that hide their files say 403.
    """
    handler = type("Quiet", (_Quiet,), {"missing": missing})
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
