"""Tasks that are measured while a run trains: when, and how they are kept from disturbing it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from growlm.testing.faults import fault_point
from growlm.train.record import read_record
from growlm.train.session import Session
from growlm.train.state import TrainState
from growlm.train.tasks import UnfinishedError


def measure_tasks(session: Session, state: TrainState) -> bool:
    """Measure the tasks of the recipe and put their scores on record.

    The numbers of the run go on as if this had not been; its seconds are paid for and count. Whether they are
    measured: they are not where a signal or the cost limit ended it.
    """
    assert session.tasks is not None
    p, stage = state.progress, session.recipe.stages[state.progress.stage]
    started = time.perf_counter()

    def turn() -> None:
        """A batch is done: the watchdog's time starts anew, and all ranks end together."""
        fault_point("train.tasks")
        session.watchdog.arm("eval", p.step)
        stop = bool(session.stop) or session.world.orphaned
        spent = p.train_seconds + time.perf_counter() - started
        if any(session.world.control(stop, session.world.main and session.over_budget(spent))):
            raise UnfinishedError

    try:
        with session.watchdog.phase("eval", p.step), _undisturbed(session, state):
            scores = session.tasks.measure(state.engine, session.tokenizer, stage.seq_len, turn)
    except UnfinishedError:
        session.console.say(f"tasks at step {p.step}: ended, the same command measures them again")
        scores = None
    seconds = time.perf_counter() - started
    p.train_seconds += seconds
    at = {"step": p.step, "stage": p.stage, "tokens": p.tokens, "train_seconds": p.train_seconds}
    if scores is None:
        session.recorder.append("tasks_ended", **at, seconds=seconds)
        return False
    session.recorder.append("tasks", **at, seconds=seconds, scores=scores)
    shown = "  ".join(f"{score['task']} {score['value']:.1%}" for score in scores)
    session.console.say(f"tasks at step {p.step}: {shown}")
    return True


def measure_missing(session: Session, state: TrainState) -> bool:
    """What an earlier start was ended before or in, at the very step that the run goes on from; as
    `measure_tasks`."""
    p = state.progress
    if p.stage_step == 0 or not tasks_are_due(session, state):
        return True
    record = read_record(session.recorder.path) if session.world.main else []
    known = any((r["kind"], r.get("step")) == ("tasks", p.step) for r in record)
    return session.world.control(known)[0] or measure_tasks(session, state)


def tasks_are_due(session: Session, state: TrainState) -> bool:
    """At the end of every stage, and each time the tokens pass a multiple of eval.tasks_every_tokens."""
    if session.tasks is None:
        return False
    p, stage = state.progress, session.recipe.stages[state.progress.stage]
    every = session.recipe.eval.tasks_every_tokens
    passed = every is not None and p.tokens // every > (p.tokens - stage.tokens_per_step) // every
    return passed or p.stage_step == stage.steps


@contextmanager
def _undisturbed(session: Session, state: TrainState) -> Iterator[None]:
    """The model as it is after this step, without the documents' bounds of the training text; afterwards the
    bounds and every generator of random numbers are as they were."""
    engine, apart = state.engine, session.recipe.data.document_mask
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    engine.set_mask(state.ramp, state.mask)
    engine.keep_documents_apart(None)
    try:
        yield
    finally:
        engine.keep_documents_apart(session.tokenizer.eos_id if apart else None)
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
