"""The live page: one secret address on this machine, read-only, and it follows the run."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import draw, needs_chromium
from fake_run import FakeRun

from growlm.errors import RecipeError
from growlm.report.server import LivePage
from growlm.train.record import Recorder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return FakeRun(tmp_path / "run", per_stage=40).write(until=50, end=None)


@pytest.fixture
def server(run: Path) -> Iterator[LivePage]:
    with LivePage(run) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    server: LivePage, path: str, method: str = "GET", host: str | None = None
) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body, dict(answer.getheaders())


def test_page_and_data(server: LivePage) -> None:
    status, page, headers = ask(server, f"/{server.token}/")
    assert status == 200
    assert 'data-poll="data.json"' in page
    assert "connect-src 'self'" in page
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    status, data, _ = ask(server, f"/{server.token}/data.json")
    assert status == 200
    assert json.loads(data)["totals"]["step"] == 50
    assert server.url.startswith("http://127.0.0.1:")
    assert server.server_address[0] == "127.0.0.1"


def test_everything_else_is_refused(server: LivePage) -> None:
    for path in (
        "/",
        f"/{server.token}",
        f"/{server.token}x/",
        f"/{server.token}/recipe.json",
        "/%C3%A9",
        "//",
        f"/{server.token}/../metrics.jsonl",
        f"/{server.token}/data.json?x=1",
        f"/{'0' * 32}/data.json",
    ):
        status, body, _ = ask(server, path)
        assert status == 404, path
        assert server.token not in body
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
        assert ask(server, f"/{server.token}/", method)[0] == 501
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::1]"):
        assert ask(server, f"/{server.token}/", host=host)[0] == 403
    assert ask(server, f"/{server.token}/", host="localhost:9999")[0] == 200  # through a tunnel


def test_watching_writes_nothing(server: LivePage, run: Path) -> None:
    def state() -> dict[str, int]:
        return {p.name: p.stat().st_mtime_ns for p in [run, *run.iterdir()]}

    before = state()
    ask(server, f"/{server.token}/")
    ask(server, f"/{server.token}/data.json")
    assert state() == before


def test_a_record_that_disappears_is_said(server: LivePage, run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    server._fresh_until = 0.0
    assert ask(server, f"/{server.token}/data.json")[0] == 503


def test_no_run_and_a_taken_port(server: LivePage, run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such run"):
        LivePage(tmp_path / "absent")
    with pytest.raises(RecipeError, match=r"Port \d+ cannot be used"):
        LivePage(run, server.server_address[1])


@needs_chromium
def test_the_open_page_follows_the_run(server: LivePage, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def data() -> dict[str, Any]:
        asked.append(1)
        if len(asked) == 2:  # the first question after the page was served
            with Recorder(run / "metrics.jsonl", 1) as recorder:
                recorder.append(
                    "step", step=51, stage=1, tokens=123_456, loss=0.125, train_seconds=60.0, flops=1e15
                )
                recorder.append("event", step=51, level="error", message="disk on fire")
                recorder.append("end", step=51, status="failed")
        return server._summarizer.summary()

    monkeypatch.setattr(server, "data", data)
    drawn = draw(server.url, milliseconds=5000)
    assert drawn.console == []
    assert len(asked) >= 2
    assert "<title>Failed: demo</title>" in drawn.dom
    assert "Step 51 of 120" in drawn.body
    assert "disk on fire" in drawn.body
