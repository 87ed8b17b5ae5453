"""A process that runs tasks: `python -m growlm.data.pipeline.worker FOLDER`.

Reads a line `PHASE NUMBER` per task, writes JSON lines: {"advance": BYTES} now and then, and at the end of a
task {"done": true} or {"error": {...}}. It ends with its standard input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from growlm.data.pipeline.local import error_to
from growlm.data.pipeline.tasks import run_task
from growlm.data.pipeline.work import Work

_SECONDS = 0.5


class _Advance:
    """Says how far the task is, at most twice a second; a caller that is gone ends the process."""

    def __init__(self) -> None:
        self._bytes, self._said = 0, time.monotonic()

    def __call__(self, count: int) -> None:
        self._bytes += count
        if time.monotonic() - self._said >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        _say({"advance": self._bytes})
        self._bytes, self._said = 0, time.monotonic()


def main() -> None:
    """Run the tasks on standard input."""
    work = Work(Path(sys.argv[1]))
    for line in sys.stdin:
        phase, number = line.split()
        advance = _Advance()
        try:
            run_task(work, phase, int(number), advance)
        except Exception as error:
            _say({"error": error_to(error)})
        else:
            advance.flush()
            _say({"done": True})


def _say(content: dict[str, object]) -> None:
    try:
        print(json.dumps(content), flush=True)
    except BrokenPipeError:  # whoever wanted to know is gone
        os._exit(1)


if __name__ == "__main__":
    main()
