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


def wait_until_quiet(load: float, minutes: float = 30.0) -> float:
    """Wait until one minute's load average is below `load`, or the time is up; the load then."""
    end = time.monotonic() + 60 * minutes
    while os.getloadavg()[0] > load and time.monotonic() < end:
        time.sleep(5)
    return os.getloadavg()[0]


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
