"""What the benchmarks share: the machine they ran on, quiet or not, and where results go."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def busy_seconds() -> float:
    """CPU seconds that the whole machine has spent on anything so far; 0 where there is no /proc/stat."""
    path = Path("/proc/stat")
    if not path.exists():
        return 0.0
    user, nice, system, _idle, _iowait, *rest = map(int, path.read_text().split()[1:8])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def wait_until_quiet(cores: float, minutes: float = 30.0) -> None:
    """Wait until the machine uses less than `cores` cores for three seconds, or the time is up."""
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        before, started = busy_seconds(), time.monotonic()
        time.sleep(3)
        if (busy_seconds() - before) / (time.monotonic() - started) < cores:
            return


class Others:
    """How many cores the rest of the machine used meanwhile; a figure is worth its quiet."""

    def __enter__(self) -> Others:
        self._busy, self._own, self._started = busy_seconds(), _own_seconds(), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        others = busy_seconds() - self._busy - (_own_seconds() - self._own)
        self.cores = max(0.0, others / (time.monotonic() - self._started))


def _own_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def machine() -> str:
    """Processor, cores and system, in a line."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in cpus if line.startswith("model name")), "")
    return f"{model or platform.processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, the columns after the first aligned right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def write_results(name: str, text: str, data: dict[str, Any]) -> None:
    """Print the result; keep it, with the command and the machine, as Markdown and JSON."""
    command = "python " + " ".join(shlex.quote(a) for a in [os.path.relpath(sys.argv[0]), *sys.argv[1:]])
    head = f"`{command}` on {date.today().isoformat()}, {machine()}\n\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(f"# {name}\n\n{head}{text}", encoding="utf-8")
    facts = {"command": command, "machine": machine(), **data}
    (RESULTS / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(text)
