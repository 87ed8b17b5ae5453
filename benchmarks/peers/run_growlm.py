"""GrowLM: `growlm.train.loop.step`, the whole step of a run with its guard and record, on random tokens."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from growlm.checkpoint.store import CheckpointStore
from growlm.recipe.schema import Recipe
from growlm.train.console import Console
from growlm.train.loop import step
from growlm.train.record import Recorder
from growlm.train.session import DTYPES, Session, peak_tflops
from growlm.train.signals import StopRequest
from growlm.train.state import TrainState

from .measure import Clock, Job, job, random_tokens


def recipe_of(j: Job, family: str = "flm") -> Recipe:
    """The job as a recipe of one stage."""
    stage = {
        "name": "bench",
        "d_model": j.d_model,
        "n_heads": j.n_heads,
        "d_ff": 4 * j.d_model if family == "flm" else round(j.d_model / 48) * 128,
        "n_layers": j.n_layers,
        "tokens": j.total_steps * j.batch_size * j.seq_len,
        "seq_len": j.seq_len,
        "batch_size": j.batch_size,
    }
    head_dim = j.d_model // j.n_heads
    return Recipe.model_validate(
        {
            "name": "bench",
            "model": {"family": family, "head_dim": head_dim, "vocab_size": j.vocab_size},
            "data": {"path": "none", "mixture": {"random": 1.0}},
            "optim": {"lr": 1e-3},
            "stages": [stage],
        }
    )


class RandomMixture:
    """Random batches in the place of `growlm.data.mixture.Mixture`."""

    def __init__(self, j: Job) -> None:
        self.job = j

    def batch(self, span: int, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # noqa: ARG002
        """Inputs and targets (B, T)."""
        tokens = random_tokens(self.job, step).numpy()
        return tokens[:, :-1], tokens[:, 1:]


def session_of(recipe: Recipe, mixture: RandomMixture, folder: Path, device: torch.device) -> Session:
    """A session as `growlm train` opens it, without data."""
    return Session(
        recipe=recipe,
        folder=folder,
        device=device,
        dataset=cast(Any, None),
        mixture=cast(Any, mixture),
        tokenizer=cast(Any, None),
        store=CheckpointStore(folder / "checkpoints", recipe.checkpoint.keep),
        recorder=Recorder(folder / "metrics.jsonl", 1),
        console=Console(),
        stop=StopRequest(),
        peak_tflops=peak_tflops(recipe, device),
    )


def main() -> None:
    """Train and report."""
    j = job()
    recipe = recipe_of(j)
    with tempfile.TemporaryDirectory() as folder:
        session = session_of(recipe, RandomMixture(j), Path(folder), torch.device("cpu"))
        state = TrainState.fresh(recipe, session.device)
        state.model.compute_dtype = DTYPES[recipe.train.precision]
        clock = Clock()
        for _ in range(j.total_steps):
            step(session, state, time.perf_counter())
            clock.tick(state.guard.losses[-1])
    clock.report(j)


if __name__ == "__main__":
    main()
