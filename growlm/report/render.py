"""The page: one HTML file that carries its style, its script and its data, and asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from growlm.checkpoint.disk import write_atomic
from growlm.report.summary import summary

REPORT_NAME = "report.html"
SHARED = ("format.js", "dom.js", "scale.js", "chart.js", "parts.js")
_RUN = (*SHARED, "shape.js", "data.js", "objectives.js", "tasks.js", "report.js", "start.js")


def render(run: Path) -> str:
    """The report of the run folder `run` as one self-contained HTML page. Raises `RecipeError` for no run."""
    data = summary(run)
    return page(data, title=data["name"])


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the report to `out` (by default `report.html` in the run folder), whole or not at all."""
    text = render(run)
    return write_page(text, Path(run) / REPORT_NAME if out is None else Path(out))


def write_page(text: str, path: Path) -> Path:
    """Replace `path` by `text` atomically. Raises `DiskError` when it cannot be written."""
    write_atomic(path, text.encode("utf-8"))
    return path


def page(data: Mapping[str, Any], *, title: str, scripts: tuple[str, ...] = _RUN, poll: str = "") -> str:
    """The HTML of `data`. With `poll`, an address relative to the page, it asks there for newer data."""
    style, script = _asset("page.css"), "\n".join(map(_asset, scripts))
    return Template(_asset("page.html")).substitute(
        title=html.escape(title),
        style=style,
        script=script,
        policy=policy(style, script, live=bool(poll)),
        poll=f' data-poll="{html.escape(poll)}"' if poll else "",
        data=embedded_json(data),
    )


def policy(style: str, script: str, *, live: bool) -> str:
    """A content security policy that runs this very script and style, and nothing else."""
    rules = {
        "default-src": "'none'",
        "style-src": _hash(style),
        "script-src": _hash(script),
        "img-src": "data:",
        "connect-src": "'self'" if live else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def embedded_json(data: Mapping[str, Any]) -> str:
    """JSON that no text inside can end: `<`, `>`, `&` and the line separators of JavaScript are escaped."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _asset(name: str) -> str:
    return (files("growlm.report") / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
