"""What test_runs.py runs in the shared ranks: whole runs, and what can happen to one rank."""

from __future__ import annotations

import math
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from growlm.data.dataset import Sequences, TokenDataset
from growlm.data.mixture import Batch, Mixture
from growlm.errors import DataError, GrowLMError
from growlm.recipe.load import load_recipe
from growlm.testing.faults import VARIABLE
from growlm.train import loop
from growlm.train.batches import Batches
from growlm.train.session import Session
from growlm.train.state import TrainState
from growlm.train.supervisor import run
from growlm.train.tally import Tally

Told = dict[str, Any]
"""How a run ended on one rank: its last step or its error, and every sequence that it trained on."""


class CrashError(Exception):
    """What nobody expects, on all ranks."""

    agreed = True


def train(recipe: str, overrides: list[str], folder: str, *events: list[Any]) -> Told:
    """A run of a recipe file on this rank. An event is [kind, rank, what]: it happens to one of the ranks."""
    drawn: list[list[int]] = []
    rank, told = int(os.environ.get("RANK", "0")), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("growlm.train.supervisor.peak_tflops", lambda *_: 1.0)
        _watch_batches(patch, drawn)
        for kind, where, what in events:
            if where == rank and kind == "override":
                overrides = [*overrides, what]
            elif where == rank:
                EVENTS[kind](patch, what)
        try:
            told["step"] = run(load_recipe(Path(recipe), overrides), Path(folder)).step
        except (GrowLMError, CrashError) as error:
            told["error"] = type(error).__name__
            told["code"] = getattr(error, "exit_code", 1)
            told["text"] = str(error)
    return told | {"batches": drawn}


def _watch_batches(patch: pytest.MonkeyPatch, drawn: list[list[int]]) -> None:
    """Write down every sequence: step of the run, place in the batch, a sum over its tokens and targets."""
    honest = Batches.take

    def take(batches: Batches, stage: int, step: int, rows: list[int]) -> Batch:
        batch = honest(batches, stage, step, rows)
        weights = np.arange(1, batch.tokens.shape[1] + 1)
        drawn.extend(
            [stage, step, row, int(x @ weights), int(y @ weights)]
            for row, x, y in zip(rows, batch.tokens, batch.targets, strict=True)
        )
        return batch

    patch.setattr(Batches, "take", take)


def _before(patch: pytest.MonkeyPatch, step: int, happens: Callable[[Session, TrainState], None]) -> None:
    """Something that happens right before a step (1-based) is computed."""
    honest = loop.step

    def interrupted(session: Session, state: TrainState, tally: Tally, started: float) -> None:
        if state.progress.step + 1 == step:
            happens(session, state)
        honest(session, state, tally, started)

    patch.setattr(loop, "step", interrupted)


def _signal(patch: pytest.MonkeyPatch, step: int) -> None:
    _before(patch, step, lambda *_: os.kill(os.getpid(), signal.SIGTERM))


def _crash(patch: pytest.MonkeyPatch, step: int) -> None:
    """On all ranks, which then leave together: none is torn out of a collective."""

    def crash(*_: object) -> None:
        raise CrashError

    _before(patch, step, crash)


def _nan(patch: pytest.MonkeyPatch, step: int) -> None:
    """This rank's share of the loss, and of the gradients, is NaN in one step."""

    def set_mult(state: TrainState, mult: float) -> None:
        for part in state.engine.parts:
            part.config = part.config.with_(logit_mult=mult)

    _before(patch, step, lambda _, state: set_mult(state, math.nan))
    _before(patch, step + 1, lambda _, state: set_mult(state, state.config.logit_mult))


def _damage(patch: pytest.MonkeyPatch, step: int) -> None:
    """The text of one step is damaged where only this rank reads it."""
    honest = Mixture.batch

    def batch(mixture: Mixture, stage: int, at: int, rows: np.ndarray) -> Batch:
        if at + 1 == step:
            raise DataError("damaged text", where="shard 3", fix="prepare it again")
        return honest(mixture, stage, at, rows)

    patch.setattr(Mixture, "batch", batch)


def _version(patch: pytest.MonkeyPatch, version: str) -> None:
    patch.setattr("growlm.__version__", version)


def _fault(patch: pytest.MonkeyPatch, spec: str) -> None:
    """A fault point of this rank is armed: a full disk."""
    patch.setattr("growlm.testing.faults._passages", Counter())
    patch.setenv(VARIABLE, spec)


def _lag(patch: pytest.MonkeyPatch, _: None) -> None:
    """Numbers are read late, as on a GPU."""
    patch.setattr(Session, "lags", property(lambda _: True))


def _damage_validation(patch: pytest.MonkeyPatch, source: str) -> None:
    """The held-out text of a source is damaged where only this rank reads it."""
    honest = TokenDataset.validation

    def validation(dataset: TokenDataset, name: str, seq_len: int, tokens: int) -> Sequences:
        if name == source and tokens > seq_len:  # not the look at the start, whether there is enough
            raise DataError("damaged text", where="shard 7", fix="prepare it again")
        return honest(dataset, name, seq_len, tokens)

    patch.setattr(TokenDataset, "validation", validation)


EVENTS: dict[str, Callable[[pytest.MonkeyPatch, Any], None]] = {
    "signal": _signal,
    "crash": _crash,
    "nan": _nan,
    "damage": _damage,
    "version": _version,
    "fault": _fault,
    "lag": _lag,
    "damage validation": _damage_validation,
}
