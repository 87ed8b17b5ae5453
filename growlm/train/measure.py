"""Tasks that are measured while a run trains: when, and how they are kept from disturbing it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from growlm.train.session import Session
from growlm.train.state import TrainState


def measure_tasks(session: Session, state: TrainState) -> None:
    """Measure the tasks of the recipe and put their scores on record.

    The run goes on as if this had not been: neither its numbers nor its training time know of it.
    """
    assert session.tasks is not None
    p, stage = state.progress, session.recipe.stages[state.progress.stage]
    started = time.perf_counter()
    with session.watchdog.phase("eval", p.step), _undisturbed(session, state):
        scores = session.tasks.measure(state.engine, session.tokenizer, stage.seq_len)
    seconds = time.perf_counter() - started
    at = {"step": p.step, "stage": p.stage, "tokens": p.tokens}
    session.recorder.append("tasks", **at, seconds=seconds, scores=scores)
    shown = "  ".join(f"{score['task']} {score['value']:.1%}" for score in scores)
    session.console.say(f"tasks at step {p.step}: {shown}")


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
