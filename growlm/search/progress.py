"""How a search is getting on: one live line on a terminal, plain lines elsewhere, a line for every trial."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from growlm.search.space import shown
from growlm.search.study import Ending, Result, Slot, Study, Taken
from growlm.train.console import duration

PLAIN_SECONDS = 30.0
REFRESH_SECONDS = 1.0


class SearchProgress:
    """Tells of trials on stderr. The live line has no thread of its own: processes are forked beside it."""

    def __init__(self, study: Study, slots: Sequence[Slot]) -> None:
        self._study = study
        self._console = Console(stderr=True, highlight=False)
        self._live = (
            Live(console=self._console, auto_refresh=False, transient=True) if sys.stderr.isatty() else None
        )
        self._shown = 0.0
        self.plan(slots)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def plan(self, slots: Sequence[Slot]) -> None:
        """The trials that there are to do."""
        self._among = {slot.name for slot in slots}

    def ended(self, taken: Taken, ending: Ending, loss: float | None, why: str) -> None:
        """A trial has come to its end."""
        what = f"{ending}, loss {loss:.4f}" if loss is not None and math.isfinite(loss) else ending
        seed = "" if taken.prunable else f"  seed={taken.seed}"
        self._say(
            f"trial {taken.number:4d} {what:<22} {shown(taken.values)}{seed}{f'  ({why})' if why else ''}"
        )

    def tick(self, running: int) -> None:
        """Show where the search stands, not more often than it is read."""
        now = time.monotonic()
        if now - self._shown < (REFRESH_SECONDS if self._live else PLAIN_SECONDS):
            return
        self._shown = now
        line = self._line([r for r in self._study.results() if r.slot in self._among], running)
        if self._live:
            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)
        else:
            self._say(line)

    def _line(self, results: list[Result], running: int) -> str:
        states = [r.state for r in results]
        over = len(states) - states.count("waiting") - states.count("running")
        best = min((r for r in results if r.loss is not None), key=lambda r: r.loss or math.inf, default=None)
        parts = [f"{over}/{len(states)} trials", f"{running} running here"]
        for state in ("pruned", "diverged", "failed"):
            if states.count(state):
                parts.append(f"{states.count(state)} {state}")
        if best is not None:
            parts.append(f"best {best.loss:.4f} at {shown(best.values)}")
        ended = [r for r in results if r.seconds and r.state not in ("waiting", "running")]
        if ended:
            each = sum(r.seconds for r in ended) / len(ended)
            parts.append(f"{duration(each * (len(states) - over) / max(running, 1))} left")
        return " | ".join(parts)

    def _say(self, text: str) -> None:
        if self._live:
            self._console.print(Text(text))
        else:
            with suppress(OSError):  # a terminal that is gone does not stop the search
                print(text, file=sys.stderr, flush=True)
