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
from growlm.parallel.watchdog import Watchdog
from growlm.parallel.world import World
from growlm.recipe.schema import Recipe
from growlm.train.batches import Batches
from growlm.train.console import Console
from growlm.train.loop import step
from growlm.train.record import Recorder
from growlm.train.saver import Saver
from growlm.train.session import Session, peak_tflops
from growlm.train.signals import StopRequest
from growlm.train.state import TrainState
from growlm.train.tally import Tally

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

    def batch(
        self,
        span: int,  # noqa: ARG002
        step: int,
        rows: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Inputs and targets (B, T); of these sequences, if they are given."""
        tokens = random_tokens(self.job, step).numpy()
        tokens = tokens if rows is None else tokens[rows]
        return tokens[:, :-1], tokens[:, 1:]


def session_of(recipe: Recipe, mixture: RandomMixture, folder: Path, world: World) -> Session:
    """A session as `growlm train` opens it, without data."""
    store = CheckpointStore(folder / "checkpoints", recipe.checkpoint.keep)
    return Session(
        recipe=recipe,
        folder=folder,
        dataset=cast(Any, None),
        mixture=cast(Any, mixture),
        batches=Batches(cast(Any, mixture)),
        tokenizer=cast(Any, None),
        world=world,
        watchdog=Watchdog(None, world.rank, recipe.timeouts.model_dump()),
        store=store,
        saver=Saver(store, world),
        recorder=Recorder(folder / "metrics.jsonl", 1),
        console=Console(),
        stop=StopRequest(),
        peak_tflops=peak_tflops(recipe, world.device),
    )


def main() -> None:
    """Train and report."""
    j = job()
    recipe, world = recipe_of(j), World.alone(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        session = session_of(recipe, RandomMixture(j), Path(folder), world)
        state = TrainState.fresh(recipe, world)
        tally, clock = Tally(session, state), Clock()
        for _ in range(j.total_steps):
            step(session, state, tally, time.perf_counter())
            tally.settle()
            clock.tick(state.guard.losses[-1])
    clock.report(j)


if __name__ == "__main__":
    main()
