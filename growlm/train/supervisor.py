"""A run from its first command to its end: stage, grow, next stage; the same command continues it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

import growlm
from growlm.checkpoint.disk import free_bytes, human_bytes, write_atomic
from growlm.checkpoint.lock import RunLock
from growlm.checkpoint.store import Checkpoint, CheckpointStore
from growlm.errors import DriftError, GrowLMError, Preempted
from growlm.model.parameters import n_parameters
from growlm.plan.progress import total_tokens
from growlm.recipe.changes import Change, recipe_diff
from growlm.recipe.check import check_recipe
from growlm.recipe.schema import Recipe
from growlm.testing.faults import fault_point
from growlm.train.console import Console, count
from growlm.train.grow import Batch, grow_checkpoint
from growlm.train.loop import train_stage
from growlm.train.record import RECORD_NAME, Recorder, next_incarnation, read_record
from growlm.train.session import Session, environment, open_data, peak_tflops, pick_device
from growlm.train.signals import StopRequest
from growlm.train.state import STATE_BYTES, TrainState
from growlm.train.validate import validation_batch

CERTIFICATE_SEQUENCES = 4


@dataclass(frozen=True)
class Outcome:
    """How a command ended: the run folder and its last step."""

    folder: Path
    step: int


def run(recipe: Recipe, folder: Path, *, accept_changes: bool = False) -> Outcome:
    """Train `recipe` in `folder` to its end, from wherever the folder stands.

    Raises Preempted when it was stopped and saved; LockError if another process owns the folder;
    DriftError if recipe, data or tokenizer changed in a way the run cannot follow; other GrowLMErrors.
    """
    check_recipe(recipe)
    device = pick_device(recipe)
    with RunLock(folder), _session(recipe, folder, device) as session:
        checkpoint = session.store.latest_valid(lambda why: session.event(0, why, "warning"))
        state = _start(session, checkpoint, accept_changes)
        return _train(session, state)


@contextmanager
def _session(recipe: Recipe, folder: Path, device: torch.device) -> Iterator[Session]:
    """Open everything that a run works with, and close it whatever happens."""
    dataset, mixture, tokenizer = open_data(recipe)
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
    try:
        while True:
            stage = state.progress.stage
            if state.progress.stage_step < session.recipe.stages[stage].steps:
                _announce_stage(session, state)
                train_stage(session, state)
            if stage + 1 == len(session.recipe.stages):
                break
            state = _grow(session, state)
        status = "done"
    except Preempted:
        status = "preempted"
        raise
    finally:
        session.recorder.append("end", step=state.progress.step, status=status)
    session.console.say(f"done: {state.progress.step} steps, {count(state.progress.tokens)} tokens")
    return Outcome(session.folder, state.progress.step)


def _start(session: Session, checkpoint: Checkpoint | None, accept_changes: bool) -> TrainState:
    """The state to go on from, with the start and, if there is one, the resume on record."""
    if checkpoint is not None:
        _check_drift(session, checkpoint, accept_changes)
    write_atomic(session.folder / "recipe.json", session.recipe.model_dump_json(indent=2).encode())
    step = checkpoint.manifest.step if checkpoint else 0
    _record_start(session, step)
    _warn_about_space(session)
    if checkpoint is None:
        return TrainState.fresh(session.recipe, session.device)
    session.replay = _recorded_after(session.folder / RECORD_NAME, step)
    session.recorder.append("resume", step=step, path=checkpoint.path.name)
    session.console.say(f"resuming at step {step} from {checkpoint.path.name}")
    now = environment(session.device, session.recipe.train.precision)
    before: dict[str, Any] = checkpoint.manifest.environment
    for key in sorted(now.keys() | before.keys()):
        if now.get(key) != before.get(key):
            note = f"{key} was {before.get(key)}, is {now.get(key)}: the bits may differ from a straight run"
            session.event(step, note, "warning")
            session.replay = {}
    return TrainState.load(checkpoint, session.recipe, session.device)


def _recorded_after(record: Path, step: int) -> dict[int, tuple[float | None, float | None]]:
    """Loss and gradient norm of the steps past a checkpoint that an earlier incarnation recorded."""
    steps = (r for r in read_record(record) if r["kind"] == "step" and r["step"] > step)
    return {r["step"]: (r["loss"], r["grad_norm"]) for r in steps}


def _check_drift(session: Session, checkpoint: Checkpoint, accept_changes: bool) -> None:
    """Refuse to continue under another tokenizer or other data; recipe changes by their class."""
    manifest = checkpoint.manifest
    if manifest.tokenizer_hash != session.dataset.tokenizer_hash:
        raise DriftError(
            "the tokenizer is not the one this run was started with",
            where=str(session.dataset.tokenizer_path),
            why="its token ids mean other text than the model has learnt",
            fix="point data.path at the data this run was started with, or start a new run",
        )
    if manifest.data_fingerprint != session.dataset.fingerprint and not accept_changes:
        raise DriftError(
            "the data is not what this run was started with",
            where=session.recipe.data.path,
            why="the batch of a step is a function of the data; its order would change",
            fix="restore the data folder, or go on with the new data: --accept-changes",
        )
    stored = session.folder / "recipe.json"
    if stored.exists():
        old = Recipe.model_validate_json(stored.read_text(encoding="utf-8"))
        _judge_changes(
            session, recipe_diff(old, session.recipe, manifest.stage), manifest.step, accept_changes
        )


def _judge_changes(session: Session, changes: list[Change], step: int, accept_changes: bool) -> None:
    forbidden = [c for c in changes if c.cls == "forbidden"]
    flagged = [c for c in changes if c.cls == "flag"]
    if forbidden or (flagged and not accept_changes):
        worst = forbidden or flagged
        raise DriftError(
            "the recipe changed under the run: " + "; ".join(f"{c.key}: {c.old} -> {c.new}" for c in worst),
            where=str(session.folder / "recipe.json"),
            why="what was trained so far depends on it" if forbidden else "the run would go on differently",
            fix="undo the change or start a new run"
            if forbidden
            else "undo the change, or pass --accept-changes",
        )
    for change in changes:
        session.event(step, f"recipe changed: {change.key}: {change.old} -> {change.new}", "warning")


def _record_start(session: Session, step: int) -> None:
    recipe = session.recipe
    session.recorder.append(
        "start",
        step=step,
        argv=["growlm", *sys.argv[1:]],
        version=growlm.__version__,
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        device=str(environment(session.device, "")["device"]),
        precision=recipe.train.precision,
        name=recipe.name,
        pid=os.getpid(),
        price_per_hour=recipe.budget.price_per_hour,
        currency=recipe.budget.currency,
        peak_tflops=session.peak_tflops,
        total_steps=sum(s.steps for s in recipe.stages),
        total_tokens=total_tokens(recipe),
    )


def _announce_stage(session: Session, state: TrainState) -> None:
    p = state.progress
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


def _grow(session: Session, state: TrainState) -> TrainState:
    """Grow the last checkpoint into the next stage and go on from the grown one."""
    fault_point("train.before_growth")
    source = session.store.latest_valid(lambda why: session.event(state.progress.step, why, "warning"))
    if source is None or source.manifest.step != state.progress.step:
        raise GrowLMError("the checkpoint at the end of the stage is gone", where=str(session.store.folder))
    recipe, index = session.recipe, state.progress.stage + 1
    entry = grow_checkpoint(
        source,
        recipe.model_config_of(index),
        recipe.growth_of(index),
        session.store,
        seed=recipe.seed + index,
        batch=_certificate_batch(session, index),
        facts=session.facts,
    )
    fault_point("train.after_growth")
    grown = session.store.latest_valid(lambda why: session.event(state.progress.step, why, "warning"))
    assert grown is not None
    keys = ("from", "to", "operator", "depth", "certificate")
    at = {"step": state.progress.step, "stage": index, "tokens": state.progress.tokens}
    session.recorder.append("growth", **at, **{k: entry[k] for k in keys})
    _say_certificate(session, entry)
    return TrainState.load(grown, recipe, session.device)


def _say_certificate(session: Session, entry: dict[str, Any]) -> None:
    c = entry["certificate"]
    session.console.say(
        f"grown by {entry['operator']} / {entry['depth']}: max |dlogit| {c['max_dlogit']:.2g}, "
        f"|dloss| {abs(c['dloss']):.2g} ({'exact' if c['exact'] else 'not exact by design'}, {c['precision']})"
    )
    locked = {a: s for a, s in c["symmetry"].items() if s["distinct"] < s["units"]}
    if locked:
        axes = ", ".join(f"{a} ({s['distinct']} of {s['units']} distinct)" for a, s in locked.items())
        message = f"copies that can never part ways on {axes}: set growth.noise or growth.split"
        session.event(entry["step"], message, "warning")


def _certificate_batch(session: Session, stage: int) -> Batch:
    """A few held-out sequences of every source, the same for every growth of the same stage."""
    length = session.recipe.stages[stage].seq_len
    sources = sorted(session.recipe.mixture_of(stage))
    wanted = CERTIFICATE_SEQUENCES * length
    pairs = [validation_batch(session.dataset, s, length, wanted, torch.device("cpu")) for s in sources]
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])


def _warn_about_space(session: Session) -> None:
    """Say at the start, not after days, that the largest stage's checkpoints will not fit."""
    recipe = session.recipe
    largest = max(n_parameters(recipe.model_config_of(i)) for i in range(len(recipe.stages)))
    needed, free = 2 * STATE_BYTES * largest, free_bytes(session.folder)
    if free < needed:
        need, have = human_bytes(needed), human_bytes(free)
        session.event(0, f"two checkpoints of the largest stage need {need}, {have} are free", "warning")
