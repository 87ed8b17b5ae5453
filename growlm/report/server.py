"""The live page: the report of one run, on this machine only, read-only, behind a secret address."""

from __future__ import annotations

import hmac
import json
import secrets
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from growlm.errors import GrowLMError, RecipeError
from growlm.report.render import page
from growlm.report.summary import Summarizer

DATA_NAME = "data.json"
_HOSTS = ("127.0.0.1", "localhost")


class LivePage(ThreadingHTTPServer):
    """Serves the page of `run` at `url` on 127.0.0.1. Port 0 takes a free one. Nothing is ever written.

    Whoever does not know the random token in the address gets 404; requests that name another host
    (DNS rebinding) get 403. Raises `RecipeError` for no such run or a port in use.
    """

    daemon_threads = True

    def __init__(self, run: Path, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        self._summarizer, self._lock = Summarizer(run), threading.Lock()
        self._data: dict[str, Any] = {}
        self._fresh_until = 0.0
        self.data()
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            raise RecipeError(
                f"Port {port} cannot be used.", where="--port", why=str(error), fix="leave --port out"
            ) from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_address[1]}/{self.token}/"

    def data(self) -> dict[str, Any]:
        """The newest summary. At most a tenth of the time goes into computing it, however long the record."""
        with self._lock:
            began = time.monotonic()
            if began >= self._fresh_until:
                self._data = self._summarizer.summary()
                took = time.monotonic() - began
                self._fresh_until = began + max(1.0, 10 * took)
            return self._data


class _Handler(BaseHTTPRequestHandler):
    server: LivePage  # pyright: ignore[reportIncompatibleVariableOverride]
    server_version, sys_version = "GrowLM", ""
    timeout = 10  # seconds that a client may take to say what it wants

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        if host not in _HOSTS:
            return self._refuse(HTTPStatus.FORBIDDEN)
        token, slash, name = self.path[1:].partition("/")
        if not (slash and hmac.compare_digest(token.encode(), self.server.token.encode())):
            return self._refuse(HTTPStatus.NOT_FOUND)
        try:
            if name == "":
                data = self.server.data()
                return self._answer(page(data, title=data["name"], poll=DATA_NAME), "text/html")
            if name == DATA_NAME:
                text = json.dumps(self.server.data(), allow_nan=False)
                return self._answer(text, "application/json")
        except (GrowLMError, OSError):
            return self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
        return self._refuse(HTTPStatus.NOT_FOUND)

    def _refuse(self, status: HTTPStatus) -> None:
        self._answer(f"{status.value} {status.phrase}\n", "text/plain", status)

    def _answer(self, text: str, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", "frame-ancestors 'none'"),  # the page carries the rest of its policy
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: addresses carry the token."""
