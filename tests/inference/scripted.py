"""A server that answers as it is told, to try what clients do with what servers do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer
from typing import Any

Reply = tuple[int, dict[str, str], Any]
"""Status, headers, and a body: bytes, or anything to send as JSON."""
MODELS = (200, {}, {"object": "list", "data": [{"id": "tiny", "object": "model", "max_model_len": 64}]})


class Scripted(ThreadingHTTPServer):
    """`reply` makes the answer of a path and the JSON that was sent; `asked` keeps all of these."""

    daemon_threads = True

    def __init__(self, reply: Callable[[str, Any], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.asked: list[tuple[str, Any]] = []
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        """As a user would name it."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Scripted  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self.answer(None)

    def do_POST(self) -> None:
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, body: Any) -> None:
        """Send what the script says."""
        self.server.asked.append((self.path, body))
        self.server.keys.append(self.headers.get("Authorization"))
        status, headers, said = self.server.reply(self.path, body)
        data = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def running(server: BaseServer) -> Iterator[None]:
    """A server answers in a thread meanwhile."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@contextmanager
def scripted(reply: Callable[[Any], Reply]) -> Iterator[Scripted]:
    """A running server with one model of 64 tokens; `reply` answers its completions."""
    with (
        Scripted(lambda path, body: MODELS if path == "/v1/models" else reply(body)) as server,
        running(server),
    ):
        yield server
