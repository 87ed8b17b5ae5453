"""Headless Chromium for tests: the drawn page and what went wrong while drawing it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to draw the page")

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--dump-dom",
]


@dataclass(frozen=True)
class Drawn:
    """The document after its scripts ran, and the lines that the console got."""

    dom: str
    console: list[str]

    @property
    def body(self) -> str:
        """The document without the data and the scripts that it carries."""
        return re.sub(r"<script\b.*?</script>", "", self.dom, flags=re.DOTALL)

    def count(self, pattern: str) -> int:
        return len(re.findall(pattern, self.body))


def draw(address: str | Path, *, milliseconds: int = 1500, width: int = 1280) -> Drawn:
    """Open a file or URL and let its time run for `milliseconds`."""
    assert CHROMIUM
    url = address.resolve().as_uri() if isinstance(address, Path) else address
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        more = [
            f"--user-data-dir={profile}",
            f"--window-size={width},1200",
            f"--virtual-time-budget={milliseconds}",
        ]
        done = subprocess.run(
            [CHROMIUM, *FLAGS, *more, url], capture_output=True, text=True, timeout=120, check=True
        )
    return Drawn(done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line])
