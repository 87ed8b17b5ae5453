"""Any task of a preparation by its phase and number: all that an executor has to know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from growlm.data.pipeline.assemble import assemble
from growlm.data.pipeline.chunks import CLAIMS, EXACT, NEAR
from growlm.data.pipeline.copies import find_copies
from growlm.data.pipeline.encode import encode_chunk
from growlm.data.pipeline.sample import train
from growlm.data.pipeline.scan import scan
from growlm.data.pipeline.settle import settle
from growlm.data.pipeline.work import Work

Advance = Callable[[int], None]
"""Is told the bytes that were done since the last call."""


class Executor(Protocol):
    """Runs the tasks of a phase, wherever."""

    def run(self, work: Work, phase: str, numbers: list[int], advance: Advance) -> None:
        """Run these tasks, in any order; all are done on return. Raises what a task raises."""
        ...

    def close(self) -> None:
        """Free what it holds; it can be used again."""
        ...


def run_task(work: Work, phase: str, number: int, advance: Advance) -> None:
    """Run one task, if it is not done yet. Raises GrowLMError for what is wrong with its input; OSError."""
    if work.done(phase, number):
        return
    if phase == "scan":
        scan(work, number, advance)
    elif phase in (EXACT, NEAR, CLAIMS):
        find_copies(work, phase, number)
    elif phase == "settle":
        settle(work, number)
    elif phase == "tokenizer":
        train(work, number, advance)
    elif phase == "encode":
        encode_chunk(work, number, advance)
    else:
        assemble(work, number, advance)
