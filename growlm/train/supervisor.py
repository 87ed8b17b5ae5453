"""A run from its first command to its end: stage, grow, next stage; the same command continues it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from growlm.checkpoint.lock import RunLock
from growlm.checkpoint.manifest import MANIFEST
from growlm.checkpoint.store import CheckpointStore
from growlm.errors import CheckpointError, Preempted, RecipeError
from growlm.model.parameters import n_parameters
from growlm.recipe.check import check_recipe
from growlm.recipe.schema import Recipe
from growlm.testing.faults import fault_point
from growlm.train.console import Console, count
from growlm.train.grow import Batch, grow_checkpoint
from growlm.train.initial import find_initial
from growlm.train.loop import train_stage
from growlm.train.record import RECORD_NAME, Recorder, next_incarnation
from growlm.train.session import Data, Session, open_data, peak_tflops, pick_device
from growlm.train.signals import StopRequest
from growlm.train.start import start
from growlm.train.state import Progress, TrainState
from growlm.train.validate import validation_batch

CERTIFICATE_SEQUENCES = 4


@dataclass(frozen=True)
class Outcome:
    """How a command ended: the run folder and its last step."""

    folder: Path
    step: int


def run(recipe: Recipe, folder: Path, *, accept_changes: bool = False) -> Outcome:
    """Train `recipe` in `folder` to its end, from wherever the folder stands.

    Raises RecipeError or DataError before anything is touched; Preempted when it was stopped and saved;
    LockError if another process owns the folder; DriftError if recipe, data or tokenizer changed in a way
    the run cannot follow; other GrowLMErrors.
    """
    check_recipe(recipe)
    if (folder / MANIFEST).is_file() or any(folder.glob("step-*")):
        raise RecipeError(
            "this is a folder of checkpoints, not of a run",
            where=str(folder),
            why="a run that started here would ignore them",
            fix=f'name another folder with --run; to train it on, write init = "{folder}" in the recipe',
        )
    device = pick_device(recipe)
    data = open_data(recipe)
    begun = bool(CheckpointStore(folder / "checkpoints", recipe.checkpoint.keep).checkpoints())
    initial = None if begun else find_initial(recipe, data[0].tokenizer_hash)
    with RunLock(folder), _session(recipe, folder, device, data) as session:
        return _train(session, start(session, initial, accept_changes))


@contextmanager
def _session(recipe: Recipe, folder: Path, device: torch.device, data: Data) -> Iterator[Session]:
    """Open everything that a run works with, and close it whatever happens."""
    dataset, mixture, tokenizer = data
    record = folder / RECORD_NAME
    incarnation = next_incarnation(record)
    with Recorder(record, incarnation) as recorder, Console() as console, StopRequest() as stop:
        yield Session(
            recipe=recipe,
            folder=folder,
            device=device,
            dataset=dataset,
            mixture=mixture,
            tokenizer=tokenizer,
            store=CheckpointStore(folder / "checkpoints", recipe.checkpoint.keep),
            recorder=recorder,
            console=console,
            stop=stop,
            peak_tflops=peak_tflops(recipe, device),
        )


def _train(session: Session, state: TrainState) -> Outcome:
    """Stage, grow, next stage, until the recipe is done."""
    status: Literal["done", "preempted", "failed"] = "failed"
    progress = state.progress
    try:
        while True:
            if progress.stage_step < session.recipe.stages[progress.stage].steps:
                _announce_stage(session, state)
                train_stage(session, state)
            if progress.stage + 1 == len(session.recipe.stages):
                break
            del state  # the certificate needs the room for the old and the new model
            state = _grow(session, progress)
            progress = state.progress
        status = "done"
    except Preempted:
        status = "preempted"
        raise
    finally:
        session.recorder.append("end", step=progress.step, status=status)
    session.console.say(f"done: {progress.step} steps, {count(progress.tokens)} tokens")
    return Outcome(session.folder, progress.step)


def _announce_stage(session: Session, state: TrainState) -> None:
    p = state.progress
    if p.stage > 0 and p.stage_step == 0:
        _announce_growth(session, state)
    stage = session.recipe.stages[p.stage]
    parameters = n_parameters(state.config)
    session.recorder.append(
        "stage",
        step=p.step,
        stage=p.stage,
        name=stage.name,
        shape=state.config.to_dict(),
        parameters=parameters,
        tokens=stage.steps * stage.tokens_per_step,
        steps=stage.steps,
        seq_len=stage.seq_len,
        batch_size=stage.batch_size,
    )
    c = state.config
    shape = f"d_model {c.d_model}, heads {c.n_heads}/{c.n_kv_heads}, ffn {c.d_ff}, layers {c.n_layers}"
    session.console.say(f"stage {p.stage + 1} {stage.name}: {count(parameters)} parameters, {shape}")


def _grow(session: Session, progress: Progress) -> TrainState:
    """Grow the last checkpoint into the next stage and go on from the grown one."""
    fault_point("train.before_growth")
    source = session.store.latest_valid(lambda why: session.event(progress.step, why, "warning"))
    if source is None or source.manifest.step != progress.step:
        raise CheckpointError(
            "the checkpoint at the end of the stage is gone or damaged",
            where=str(session.store.folder),
            fix="the same command goes on from the checkpoint before it",
        )
    recipe, index = session.recipe, progress.stage + 1
    grow_checkpoint(
        source,
        recipe.model_config_of(index),
        recipe.growth_of(index),
        session.store,
        seed=recipe.seed + index,
        batch=_certificate_batch(session, index),
        batches=_training_batches(session, index),
        facts=session.facts,
    )
    fault_point("train.after_growth")
    grown = session.store.latest_valid(lambda why: session.event(progress.step, why, "warning"))
    assert grown is not None
    return TrainState.load(grown, recipe, session.device)


def _announce_growth(session: Session, state: TrainState) -> None:
    """The growth into this stage. From the state, so that a kill right after its commit loses no record."""
    p, entry = state.progress, state.lineage[-1]
    keys = ("from", "to", "operator", "depth", "certificate")
    at = {"step": p.step, "stage": p.stage, "tokens": p.tokens}
    session.recorder.append("growth", **at, **{k: entry[k] for k in keys})
    c = entry["certificate"]
    kind = "exact" if c["exact"] else "not exact by design"
    session.console.say(
        f"grown by {entry['operator']} / {entry['depth']}: max |dlogit| {c['max_dlogit']:.2g}, "
        f"|dloss| {abs(c['dloss']):.2g} ({kind}, {c['precision']})"
    )
    locked = {a: s for a, s in c["symmetry"].items() if s["distinct"] < s["units"]}
    if locked and session.recipe.growth_of(p.stage).effective_moments != "asymmetric":
        axes = ", ".join(f"{a} ({s['distinct']} of {s['units']} distinct)" for a, s in locked.items())
        message = f"copies that can never part ways on {axes}: set growth.noise, split or moments"
        session.event(p.step, message, "warning")


def _certificate_batch(session: Session, stage: int) -> Batch:
    """A few held-out sequences of every source, the same for every growth of the same stage."""
    length = session.recipe.stages[stage].seq_len
    sources = sorted(session.recipe.mixture_of(stage))
    wanted = CERTIFICATE_SEQUENCES * length
    pairs = [validation_batch(session.dataset, s, length, wanted, torch.device("cpu")) for s in sources]
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])


def _training_batches(session: Session, stage: int) -> Iterator[Batch]:
    """The batches of a stage in order, for a growth that learns; the stage will see them again."""
    for step in range(session.recipe.stages[stage].steps):
        x, y = (torch.from_numpy(a).to(session.device) for a in session.mixture.batch(stage, step))
        yield x, y
