"""Tiny runs, what they come to, and children to die in our place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from growlm.checkpoint.store import Checkpoint, CheckpointStore
from growlm.parallel.watchdog import Watchdog
from growlm.parallel.world import World
from growlm.recipe.schema import Recipe
from growlm.testing.faults import VARIABLE
from growlm.train.batches import Batches
from growlm.train.console import Console
from growlm.train.record import RECORD_NAME, Recorder, read_record
from growlm.train.saver import Saver
from growlm.train.session import Session, open_data
from growlm.train.signals import StopRequest
from growlm.train.supervisor import run
from tests.checkpoint.helpers import in_child

torch.set_num_threads(1)

ALONE = World.alone(torch.device("cpu"))
"""One process on the CPU."""

Outcome = dict[str, Any]
"""Everything of a finished run that must not depend on how often it was killed."""

ONE_STAGE = (
    "stages=[{name = 'only', d_model = 16, n_heads = 2, d_ff = 32, n_layers = 1,"
    " tokens = 3072, seq_len = 16, batch_size = 8}]",
    "eval.every_tokens=1_000_000",
)
"""Overrides: 24 steps of the smallest shape, no growth."""


def straight_run(recipe: Recipe, folder: Path) -> Outcome:
    """The outcome of a run that nothing happens to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("growlm.train.supervisor.peak_tflops", lambda *_: 1.0)
        run(recipe, folder)
    return outcome(folder)


def killed(recipe: Recipe, folder: Path, fault: str) -> None:
    """Run until the fault kills the process; it must."""
    code = in_child(lambda: run(recipe, folder), fault)
    assert code == -9, f"{fault} was not reached: exit {code}"


def outcome(folder: Path) -> Outcome:
    """Losses, validation and samples of every step, and the state in the newest checkpoint, by its bits."""
    manifest = newest(folder).manifest
    return {
        "steps": steps(folder),
        "valid": [(r["step"], r["losses"]) for r in records(folder, "valid")],
        "samples": [(r["step"], r["prompt"], r["text"]) for r in records(folder, "sample")],
        "growths": {r["stage"]: (r["step"], r["certificate"]) for r in records(folder, "growth")},
        "files": {name: file.xxh3 for name, file in manifest.files.items()},
        "state": {key: getattr(manifest, key) for key in STATE_FIELDS},
    }


STATE_FIELDS = (
    *("step", "stage", "stage_step", "tokens", "updates", "skipped", "flops"),
    *("model", "mask", "lineage", "births", "guard"),
)
STEP_FIELDS = ("step", "stage", "tokens", "loss", "grad_norm", "lr", "mask", "applied", "flops")


def steps(folder: Path) -> list[tuple[Any, ...]]:
    """What a step computed, exactly once for every step."""
    found = [tuple(r[key] for key in STEP_FIELDS) for r in records(folder, "step")]
    assert [step[0] for step in found] == list(range(1, len(found) + 1))
    return found


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Records of a kind that count."""
    return [r for r in read_record(folder / RECORD_NAME) if r["kind"] == kind]


def messages(folder: Path, level: str = "warning") -> list[str]:
    """Events of a level."""
    return [r["message"] for r in records(folder, "event") if r["level"] == level]


def content(folder: Path) -> dict[str, bytes]:
    """Every file but the record and the lock, which also tell of a refusal."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in ("metrics.jsonl", "lock"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def newest(folder: Path) -> Checkpoint:
    """The newest checkpoint of a run; it must be whole."""
    found = CheckpointStore(folder / "checkpoints", keep=2).latest_valid(pytest.fail)
    assert found is not None
    return found


def checkpoint_names(folder: Path) -> list[str]:
    """Names of the checkpoints of a run, oldest first."""
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@contextmanager
def open_session(recipe: Recipe, folder: Path) -> Iterator[Session]:
    """What a run works with, for calling the parts of the loop."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset, mixture, tokenizer = open_data(recipe)
    store = CheckpointStore(folder / "checkpoints", recipe.checkpoint.keep)
    with (
        Recorder(folder / RECORD_NAME, 1) as recorder,
        Console() as console,
        Saver(store, ALONE) as saver,
        Watchdog(None, 0, dict.fromkeys(("setup", "step", "save", "eval"), 1e9)) as watchdog,
    ):
        yield Session(
            recipe=recipe,
            folder=folder,
            dataset=dataset,
            mixture=mixture,
            batches=Batches(mixture),
            tokenizer=tokenizer,
            world=ALONE,
            watchdog=watchdog,
            store=store,
            saver=saver,
            recorder=recorder,
            console=console,
            stop=StopRequest(),
            peak_tflops=1.0,
        )


@contextmanager
def fault(spec: str) -> Iterator[None]:
    """A fault armed in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, spec)
        patch.setattr("growlm.testing.faults._passages", Counter())
        yield
