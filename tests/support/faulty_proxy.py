"""A proxy before an object store that answers as stores and networks do on a bad day."""

import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

KINDS = ("429", "500", "503", "cut", "deaf", "short", "slow")
"""Errors of servers; cut before the store was asked; and after it did what it was asked; half an answer; an
answer that takes its time."""

OWN_HEADERS = ("connection", "content-length", "keep-alive", "transfer-encoding")

SLOW_SECONDS = 1.0


@dataclass
class Faults:
    """What goes wrong: the next of `kinds`, at each `every`th request with `match` in its line or body."""

    kinds: tuple[str, ...]
    every: int = 1
    most: int = 1 << 30
    match: bytes = b""
    seen: int = 0
    done: Counter[str] = field(default_factory=Counter)

    def next(self, request: bytes) -> str:
        if self.match not in request or self.done.total() >= self.most:
            return ""
        self.seen += 1
        if self.seen % self.every:
            return ""
        kind = self.kinds[self.done.total() % len(self.kinds)]
        self.done[kind] += 1
        return kind


class FaultyProxy(ThreadingHTTPServer):
    """Hands requests on to a store at a port of this machine; `requests` counts them by method."""

    daemon_threads = True
    request_queue_size = 1024  # of the base's 5, clients that open more at once wait seconds for their turn

    def __init__(self, store: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = store
        self.requests: Counter[str] = Counter()
        self._faults = Faults(())
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def failing(self, *kinds: str, **how: int | bytes) -> Iterator[Faults]:
        """Have requests fail while the context is open."""
        self._faults = Faults(kinds, **how)  # type: ignore[arg-type]
        try:
            yield self._faults
        finally:
            self._faults = Faults(())

    def fault(self, method: str, request: bytes) -> str:
        with self._lock:
            self.requests[method] += 1
            return self._faults.next(request) if self._faults.kinds else ""

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients go away as they like."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else an answer's second packet waits 40 ms for word of the first
    server: FaultyProxy

    def _pass(self) -> None:
        body = self._body()
        fault = self.server.fault(self.command, unquote(self.path).encode() + body)
        if fault == "cut":
            return self._cut()
        if fault == "slow":
            time.sleep(SLOW_SECONDS)
        if fault.isdigit():
            return self._answer(int(fault), [], b"", 0)
        store = http.client.HTTPConnection("127.0.0.1", self.server.store, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in OWN_HEADERS}
        store.request(self.command, self.path, body, headers)
        answer = store.getresponse()
        data = answer.read()
        store.close()
        if fault == "deaf":
            return self._cut()
        size = int(answer.headers.get("Content-Length", len(data))) if self.command == "HEAD" else len(data)
        self._answer(answer.status, answer.getheaders(), data, size, cut=fault == "short")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _answer(
        self, status: int, headers: list[tuple[str, str]], data: bytes, size: int, cut: bool = False
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in OWN_HEADERS:
                self.send_header(name, value)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self._cut()

    def _cut(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:  # the base's name
        """Say nothing."""
