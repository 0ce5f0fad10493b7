"""A server that receives notifications on a local port: it answers, refuses, or never finishes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from tests.support.engines import wait_until


class Received(NamedTuple):
    """A request."""

    path: str
    headers: dict[str, str]
    body: bytes


class Webhook(ThreadingHTTPServer):
    """Answers with the status in the path: `/200`. `/hang` gets no answer, `/drip` one header after the other for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[Received] = []
        self.closing = threading.Event()

    def url(self, path: str = "200") -> str:
        """Address of a path."""
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def first(self, count: int = 1) -> list[Received]:
        """The first requests, once they are there."""
        wait_until(lambda: len(self.received) >= count)
        return self.received[:count]


class _Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(Received(self.path, dict(self.headers), body))
        if self.path == "/hang":
            self.server.closing.wait()
        elif self.path == "/drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not self.server.closing.wait(0.05):
                self.wfile.write(b"X: y\r\n")
        else:
            self.send_response(int(self.path.strip("/")))
            self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def webhook() -> Iterator[Webhook]:
    """A server that runs."""
    with Webhook() as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign] # clients that give up
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()
