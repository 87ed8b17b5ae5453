from __future__ import annotations

import io
import sys

import pytest

from growlm.data.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("total", [None, 3_000_000])
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_task_ends_with_its_size(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], total: int | None
):
    shown = stream()
    monkeypatch.setattr(sys, "stderr", shown)
    with Progress().task("read en", total) as advance:
        for _ in range(3):
            advance(1_000_000)
    assert "read en" in shown.getvalue()
    assert "3.0 MB" in shown.getvalue() or "2.9" in shown.getvalue()


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]):
    with Progress(quiet=True).task("read en") as advance:
        advance(5)
    assert capsys.readouterr() == ("", "")


def test_what_is_counted_has_a_name():
    shown = io.StringIO()
    with Progress(stream=shown).task("hellaswag", 4, "requests") as advance:
        advance(3)
    assert shown.getvalue().startswith("hellaswag: 3 of 4 requests, ")
