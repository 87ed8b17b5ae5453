"""The completions endpoint in bad company: what it does not read, whom it lets wait, how it ends."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from growlm.errors import RecipeError
from growlm.inference.local import Local
from growlm.inference.serve import server as serve
from growlm.inference.serve.server import LARGEST_BODY, Server
from tests.inference.served import post, serving, tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Local:
    return tiny(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def server(model: Local) -> Iterator[Server]:
    with serving(model) as server:
        yield server


def test_requests_that_are_none(server: Server) -> None:
    assert post(server, b"{")[0] == 400
    assert post(server, b"[" * 100_000)[0] == 400
    assert post(server, b"\xff\xfe")[0] == 400
    assert post(server, ["a"])[0] == 400
    assert post(server, {"prompt": "A"}, path="/v1/nothing")[0] == 404
    assert post(server, {"prompt": "A"}, path="/v1/../etc/passwd")[0] == 404
    assert post(server, {"messages": []}, path="/v1/chat/completions")[1]["error"]["message"].startswith(
        "This server completes texts"
    )
    assert post(server, {"prompt": "A"}, **{"Content-Type": "text/plain"})[0] == 415
    assert post(server, {"prompt": "A"}, **{"Content-Length": "x"})[0] == 411


def test_only_this_machine_may_ask(server: Server) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example:80", "[::2]", ""):
        assert post(server, {"prompt": "A"}, Host=host)[0] == 403
    for host in ("localhost:1", "LocalHost", "[::1]", "[::1]:80", "127.0.0.1"):
        assert post(server, {"prompt": "A", "max_tokens": 1}, Host=host)[0] == 200
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(RecipeError, match="cannot be used"):
        Server(server.model, name="other", port=server.server_address[1])


def test_a_body_that_is_too_large_is_not_read_to_its_end(server: Server) -> None:
    status, said = post(server, b" " * (LARGEST_BODY + 1))
    assert status == 413
    assert "larger than" in said["error"]["message"]


def test_a_client_that_never_says_all_is_let_go(model: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "PATIENCE", 0.2)
    for said in (b"POST /v1/completions HTTP/1.1\r\nX: ", b"POST / HTTP/1.1\r\nContent-Length: 9999\r\n\r\n"):
        with serving(model) as server, connected(server) as connection:
            connection.sendall(said)
            with pytest.raises(ConnectionError):
                until(lambda: connection.sendall(b"x"))  # something comes all the time


class Gate:
    """Holds a model back: it goes through once for every token that `let` allows."""

    def __init__(self, model: Local, monkeypatch: pytest.MonkeyPatch) -> None:
        self._allowed = threading.Semaphore(0)
        self.done = 0
        forward = model.decoder.forward

        def gated(*args: Any, **kwargs: Any) -> Any:
            assert self._allowed.acquire(timeout=20)
            self.done += 1
            return forward(*args, **kwargs)

        monkeypatch.setattr(model.decoder, "forward", gated)

    def let(self, tokens: int) -> None:
        """Allow so many more."""
        self._allowed.release(tokens)


LONG = {"prompt": "A", "max_tokens": 60, "temperature": 0, "stream": True}


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=20)


def begin(server: Server, gate: Gate) -> socket.socket:
    """A client that has asked for a long text and has seen it begin."""
    connection = connected(server)
    data = json.dumps(LONG).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
    connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + data)
    gate.let(1)
    assert connection.recv(1000).startswith(b"HTTP/1.0 200")
    return connection


def rest_of(connection: socket.socket) -> bytes:
    """All that still comes."""
    with connection:
        return b"".join(iter(lambda: connection.recv(4096), b""))


def until(true: Callable[[], object]) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_client_that_goes_away_stops_the_model(model: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(model, monkeypatch)
    with serving(model) as server:
        begin(server, gate).close()
        job = server.line._current
        assert job is not None
        until(job.cancelled.is_set)
        gate.let(2)  # one that it is at, and one for the next
        assert post(server, {"prompt": "B", "max_tokens": 1})[0] == 200
    assert gate.done <= 3


def test_a_full_line_says_when_to_come_again(model: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(model, monkeypatch)
    with serving(model, waiting=1) as server, ThreadPoolExecutor() as pool:
        running = begin(server, gate)
        waiting = pool.submit(post, server, {"prompt": "B", "max_tokens": 1})
        until(lambda: len(server.line._waiting) == 1)
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
        connection.request("POST", "/v1/completions", json.dumps(LONG), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        answer.read()
        connection.close()
        running.close()
        gate.let(60)
        assert waiting.result()[0] == 200


def test_time_is_limited_waiting_included(model: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(model, monkeypatch)
    with serving(model) as server:
        running = begin(server, gate)
        job = server.line._current
        assert job is not None
        job._until = 0.0  # its time is up now
        gate.let(1)
        rest = rest_of(running)
        assert b"longer than 300 s" in rest
        assert b"[DONE]" not in rest
    with serving(model, seconds=1e-9) as server:
        status, said = post(server, {**LONG, "stream": False})
        assert (status, said["error"]["code"]) == (504, "timeout")
    assert gate.done == 2


def test_a_server_that_ends_says_so_to_those_who_wait(model: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(model, monkeypatch)
    with ThreadPoolExecutor() as pool, serving(model) as server:
        running, line = begin(server, gate), server.line
        pool.submit(lambda: (until(lambda: line._closed), gate.let(1)))  # what it is at ends while it closes
    assert b"shutting down" in rest_of(running)
