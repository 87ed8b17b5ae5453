"""What the terminal shows: one live line on a TTY, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Any, Self

from rich.console import Console as RichConsole
from rich.live import Live
from rich.text import Text

PLAIN_SECONDS = 10.0


class Console:
    """The terminal line of a run, and messages above it. Writes to stderr, unless it is `quiet`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._tty = sys.stderr.isatty() and not quiet
        self._rich = RichConsole(stderr=True, highlight=False)
        self._live = Live(console=self._rich, refresh_per_second=4, transient=True) if self._tty else None
        self._last = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def status(self, text: str, *, now: bool = False) -> None:
        """The state of the run; off a TTY at most one line in ten seconds unless `now`."""
        if self._live:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"))
        elif not self._quiet and (now or time.monotonic() - self._last >= PLAIN_SECONDS):
            self._last = time.monotonic()
            _print(text)

    def say(self, text: str) -> None:
        """A message that stays."""
        if self._live:
            self._rich.print(Text(text))
        elif not self._quiet:
            _print(text)


def _print(text: str) -> None:
    """A line on stderr. A log on a full disk, or a terminal that is gone, must not stop the training."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def status_line(r: dict[str, Any], *, stages: int, left: float, since_save: float, currency: str) -> str:
    """One line from a step record. `left` is seconds to go; `since_save` seconds since the last save."""
    loss = "-" if r["loss"] is None else f"{r['loss']:.4f}"
    parts = [
        f"step {r['step']}",
        f"stage {r['stage'] + 1}/{stages}",
        f"{count(r['tokens'])} tok",
        f"loss {loss}",
        f"lr {r['lr']:.2e}",
        f"grad {r['grad_norm']:.2f}" if r["grad_norm"] is not None else "grad -",
        f"{count(r['tokens_per_second'])} tok/s",
        f"MFU {100 * r['mfu']:.0f}%",
        f"{r['memory_bytes'] / 2**30:.2f} GiB",
        f"{duration(r['train_seconds'])} + {duration(left)}",
    ]
    if r["mask"] < 1:
        parts.insert(4, f"mask {r['mask']:.2f}")
    if r["cost"] is not None:
        to_go = r["cost"] * left / max(r["train_seconds"], 1e-9)
        parts.append(f"{r['cost']:.2f} + {to_go:.2f} {currency}")
    parts.append(f"saved {duration(since_save)} ago")
    return " | ".join(parts)


def count(n: float) -> str:
    """1234567 -> 1.23M."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return f"{n:.0f}"


def duration(seconds: float) -> str:
    """75 -> 1m15s."""
    s = round(seconds)
    if s < 60:
        return f"{s}s"
    if s < 3600:
        return f"{s // 60}m{s % 60:02d}s"
    if s < 86400:
        return f"{s // 3600}h{s % 3600 // 60:02d}m"
    return f"{s // 86400}d{s % 86400 // 3600:02d}h"
