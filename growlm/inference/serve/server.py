"""The HTTP side: who may ask, how much, and answers in OpenAI's form, at once or streamed."""

from __future__ import annotations

import io
import json
import secrets
import select
import socket
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty
from threading import BoundedSemaphore
from typing import Any
from urllib.parse import unquote

from growlm.errors import RecipeError
from growlm.inference.endpoint import IDENTITY_KEY
from growlm.inference.local import Local
from growlm.inference.serve.ask import Ask, Refused, parse
from growlm.inference.serve.complete import Piece, complete
from growlm.inference.serve.line import Job, Line

LARGEST_BODY = 8 << 20
MOST_CONNECTIONS = 256
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PATIENCE = 30.0
"""Seconds that a client may take to say all that it wants, or to take a part of an answer."""
_CHUNK = 1 << 16
_POLL = 0.1  # seconds between looks at whether a client is still there


class Server(ThreadingHTTPServer):
    """Serves one model at `url`, with one thread that runs it. Port 0 takes a free one.

    `host` other than this machine lets everybody on that network ask; on this machine requests that name
    another host (DNS rebinding) get 403. Raises RecipeError for an address that cannot be used.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        model: Local,
        *,
        name: str,
        host: str = "127.0.0.1",
        port: int = 8000,
        max_tokens: int | None = None,
        waiting: int = 32,
        seconds: float = 300.0,
    ) -> None:
        self.model, self.name = model, name
        self.max_tokens = min(max_tokens or model.context, model.context)
        self.local = host in LOOPBACK
        self.since = int(time.time())
        self._connections = BoundedSemaphore(MOST_CONNECTIONS)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise RecipeError(
                f"{host} port {port} cannot be used.",
                where="--port",
                why=str(error),
                fix="--port 0 takes a free one",
            ) from error
        writer = model.writer()
        self.line = Line(lambda ask: complete(writer, model.text, ask), longest=waiting, seconds=seconds)

    @property
    def url(self) -> str:
        """What clients call its base URL."""
        host, port = self.server_address[:2]
        return f"http://[{host}]:{port}/v1" if ":" in str(host) else f"http://{host}:{port}/v1"

    def server_close(self) -> None:
        """Let go of the port and stop the model."""
        super().server_close()
        if hasattr(self, "line"):
            self.line.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for it, unless there are too many."""
        if self._connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """As the base class, counted."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """As the base class, but a client that went away is nothing to speak of."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    server_version, sys_version = "GrowLM", ""
    timeout = PATIENCE

    def setup(self) -> None:
        """As the base class, but the time runs from here, however often something comes."""
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Timed(self.connection, PATIENCE))

    def do_GET(self) -> None:
        """A model, or the list of the only one."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """A completion."""
        self._answer(self._post)

    def _answer(self, what: Callable[[], None]) -> None:
        try:
            what()
        except Refused as refused:
            self._send(refused.status, refused.body)

    def _check_host(self) -> None:
        host = self.headers.get("Host", "").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self.server.local and name.strip("[]") not in LOOPBACK:
            raise Refused(403, "This server answers on this machine only.")

    def _get(self) -> None:
        self._check_host()
        about = {
            "id": self.server.name,
            "object": "model",
            "created": self.server.since,
            "owned_by": "growlm",
            "max_model_len": self.server.model.context,
            IDENTITY_KEY: self.server.model.identity,
        }
        if self.path == "/v1/models":
            return self._send(200, {"object": "list", "data": [about]})
        if unquote(self.path) == f"/v1/models/{self.server.name}":
            return self._send(200, about)
        raise Refused(404, "There is GET /v1/models and POST /v1/completions.")

    def _post(self) -> None:
        data = self._body()
        self._check_host()
        if self.path == "/v1/chat/completions":
            raise Refused(
                404,
                "This server completes texts and knows no chat template: POST /v1/completions with the"
                " conversation as `prompt`.",
            )
        if self.path != "/v1/completions":
            raise Refused(404, "There is GET /v1/models and POST /v1/completions.")
        server = self.server
        ask = parse(
            self._json(data),
            server.model.text,
            model=server.name,
            context=server.model.context,
            most_tokens=server.max_tokens,
        )
        job = server.line.add(ask)
        try:
            _Answer(self, ask, job).send()
        finally:
            server.line.cancel(job)

    def _body(self) -> bytes:
        """What was sent: read also where it is refused, or closing would break the answer. Raises Refused."""
        length = self.headers.get("Content-Length", "")
        if not (length.isdecimal() and length.isascii()):
            raise Refused(411, "Content-Length is missing.")
        if int(length[:20]) <= LARGEST_BODY:
            return self.rfile.read(int(length))
        for _ in range(min(int(length[:20]), 4 * LARGEST_BODY) // _CHUNK):
            self.rfile.read(_CHUNK)
        raise Refused(413, f"The body is larger than {LARGEST_BODY} bytes.")

    def _json(self, data: bytes) -> Any:
        """The value that was sent. Raises Refused."""
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # which a web page elsewhere cannot send without asking first
            raise Refused(415, "Content-Type must be application/json.")
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Refused(400, f"The body is not JSON: {error}"[:200]) from None

    def _send(self, status: int, body: dict[str, Any]) -> None:
        self._head(status, "application/json")
        self.wfile.write(_json(body))

    def _head(self, status: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if status in (429, 503):
            self.send_header("Retry-After", "1")
        if status == 504:
            self.send_header("X-Should-Retry", "false")  # openai's client would ask for as much again
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What the base class refuses, a method or a line too long, in OpenAI's form."""
        refused = Refused(code, message or HTTPStatus(code).phrase)
        self._send(code, refused.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what people ask is theirs."""


class _Timed(io.RawIOBase):
    """What comes from a connection in the first `seconds`; later reads raise TimeoutError."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection, self._seconds = connection, seconds
        self._until = time.monotonic() + seconds

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Bytes that were read; 0 where the client sends no more."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(self._seconds)


class _Answer:
    """Sends what comes of a job."""

    def __init__(self, handler: _Handler, ask: Ask, job: Job) -> None:
        self._handler, self._ask, self._job = handler, ask, job
        self._written = 0
        self._about = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": handler.server.name,
        }

    def send(self) -> None:
        """Send all of it, or stop where the client has gone away. Raises Refused before anything was sent."""
        try:
            if self._ask.stream:
                self._stream()
            else:
                self._whole()
        except (ConnectionError, TimeoutError):
            return

    def _whole(self) -> None:
        choices = [Piece(i) for i in range(len(self._ask.prompts) * self._ask.n)]
        while (piece := self._next()) is not None:
            _join(choices[piece.index], piece)
        body = {"choices": [_choice(piece) for piece in choices], "usage": self._usage()}
        self._handler._send(200, self._about | body)

    def _stream(self) -> None:
        piece = self._next()
        self._handler._head(200, "text/event-stream")
        try:
            while piece is not None:
                if piece.text or piece.finish or (piece.logprobs and piece.logprobs["tokens"]):
                    self._event(self._about | {"choices": [_choice(piece)]})
                piece = self._next()
        except Refused as refused:
            self._event(refused.body)
            return
        if self._ask.stream_usage:
            self._event(self._about | {"choices": [], "usage": self._usage()})
        self._handler.wfile.write(b"data: [DONE]\n\n")

    def _event(self, body: dict[str, Any]) -> None:
        self._handler.wfile.write(b"data: " + _json(body) + b"\n\n")

    def _next(self) -> Piece | None:
        """The next piece. Raises Refused; ConnectionError once the client has gone away."""
        while True:
            try:
                found = self._job.answers.get(timeout=_POLL)
            except Empty:
                if _gone(self._handler.connection):
                    raise ConnectionAbortedError from None
                continue
            if isinstance(found, Refused):
                raise found
            if found is not None:
                self._written += found.tokens
            return found

    def _usage(self) -> dict[str, int]:
        read = sum(len(prompt.ids) for prompt in self._ask.prompts)
        return {
            "prompt_tokens": read,
            "completion_tokens": self._written,
            "total_tokens": read + self._written,
        }


def _join(choice: Piece, more: Piece) -> None:
    choice.text += more.text
    choice.finish = more.finish
    if choice.logprobs is None:
        choice.logprobs = more.logprobs
    elif more.logprobs is not None:
        for key, column in more.logprobs.items():
            choice.logprobs[key] += column


def _choice(piece: Piece) -> dict[str, Any]:
    return {
        "index": piece.index,
        "text": piece.text,
        "logprobs": piece.logprobs,
        "finish_reason": piece.finish,
    }


def _gone(connection: socket.socket) -> bool:
    """Whether the other side has closed the connection."""
    try:
        readable, _, _ = select.select([connection], [], [], 0)
        return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, allow_nan=False).encode(errors="replace")
