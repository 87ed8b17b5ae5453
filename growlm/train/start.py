"""How a command begins: anew, or from a checkpoint of the same run; anything else is refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import growlm
from growlm.checkpoint.disk import free_bytes, human_bytes, write_atomic
from growlm.checkpoint.store import Checkpoint
from growlm.data.changed import data_changes
from growlm.errors import CheckpointError, DriftError
from growlm.model.parameters import n_parameters
from growlm.plan.progress import total_tokens
from growlm.recipe.changes import Change, recipe_diff
from growlm.recipe.load import resolve_hash
from growlm.recipe.schema import Recipe
from growlm.train.initial import Initial, is_still_there
from growlm.train.record import RECORD_NAME, read_record
from growlm.train.session import Replay, Session, environment
from growlm.train.state import STATE_BYTES, TrainState
from growlm.train.stored import (
    DATA_MANIFEST,
    RECIPE_NAME,
    store_companions,
    store_data,
    stored_manifest,
    stored_recipe,
)
from growlm.train.verify import latest_valid


def start(session: Session, initial: Initial | None, accept_changes: bool) -> TrainState:
    """The state to go on from, with the start and, if there is one, the resume on record.

    `initial` is what a run without a checkpoint starts from; None is random weights. Rank 0 chooses.

    Raises DriftError if recipe, data or tokenizer changed in a way the run cannot follow, CheckpointError
    if every checkpoint is damaged or gone; then neither checkpoints nor recipe were touched.
    """
    world = session.world
    checkpoint = latest_valid(session.store, world, lambda why: session.event(0, why, "warning"))
    with world.together():
        if world.main and checkpoint is None:
            _begin_anew(session, initial)
        elif world.main and checkpoint is not None:
            _go_on(session, checkpoint, accept_changes)
    if checkpoint is None:
        return _fresh(session, initial)
    state = TrainState.load(checkpoint, session.recipe, world)
    session.init_hash = checkpoint.manifest.init
    state.progress.train_seconds = max(state.progress.train_seconds, session.spent_seconds)
    return state


def _begin_anew(session: Session, initial: Initial | None) -> None:
    """Put the start of a run on record."""
    _refuse_if_ever_saved(session)
    if initial is not None:
        store_companions(session.folder, initial.companions)
    _begin(session, step=0)


def _go_on(session: Session, checkpoint: Checkpoint, accept_changes: bool) -> None:
    """Put a resume on record, if the run may go on as the recipe now says. Raises DriftError."""
    step = checkpoint.manifest.step
    accepted = _judge_drift(session, checkpoint, accept_changes)
    replay, session.spent_seconds = _recorded_after(session.folder / RECORD_NAME, step)
    _begin(session, step)
    session.recorder.append("resume", step=step, path=checkpoint.path.name)
    session.console.say(f"resuming at step {step} from {checkpoint.path.name}")
    other = _differences(checkpoint, session)
    for note in accepted + other:
        session.event(step, note, "warning")
    session.replay = {} if accepted or other else replay


def _fresh(session: Session, initial: Initial | None) -> TrainState:
    """The state before the first step."""
    if initial is None:
        return TrainState.fresh(session.recipe, session.world)
    state = initial.state(session.recipe, session.world)
    session.init_hash = initial.hash
    moments = f"{state.progress.updates} updates of its optimizer go on"
    session.event(
        0, f"starting from {initial.path}, {moments if state.progress.updates else 'without optimizer state'}"
    )
    return state


def _begin(session: Session, step: int) -> None:
    """Put the recipe and the start on record; warn now, not after days, that the disk is too small."""
    recipe = session.recipe
    write_atomic(session.folder / RECIPE_NAME, recipe.model_dump_json(indent=2).encode())
    store_data(session.folder, session.dataset, recipe)
    session.recorder.append(
        "start",
        step=step,
        argv=["growlm", *sys.argv[1:]],
        version=growlm.__version__,
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        device=str(environment(session.device, "")["device"]),
        ranks=session.world.size,
        precision=recipe.train.precision,
        name=recipe.name,
        pid=os.getpid(),
        price_per_hour=recipe.budget.price_per_hour,
        currency=recipe.budget.currency,
        peak_tflops=session.peak_tflops,
        total_steps=sum(s.steps for s in recipe.stages),
        total_tokens=total_tokens(recipe),
    )
    for note, level in _notes_on_data(session):
        session.event(step, note, level)
    largest = max(n_parameters(recipe.model_config_of(i)) for i in range(len(recipe.stages)))
    needed, free = 2 * STATE_BYTES * largest, free_bytes(session.folder)
    if free < needed:
        need, have = human_bytes(needed), human_bytes(free)
        session.event(step, f"two checkpoints of the largest stage need {need}, {have} are free", "warning")


def _notes_on_data(session: Session) -> Iterator[tuple[str, str]]:
    """What a person should know of the data before the run has been paid for, with its level."""
    mixture, stages = session.mixture, session.recipe.stages
    for source, one in mixture.learnt.items():
        if one.packing and one.packing.too_long:
            left_out = f"{one.packing.too_long:,} of {one.packing.examples + one.packing.too_long:,} examples"
            yield f"{source}: {left_out} are longer than {one.unit} tokens and are left out", "warning"
    for source, epochs in mixture.epochs(len(stages) - 1, stages[-1].steps).items():
        if epochs > 1:
            yield f"{source}: there is less of it than the run draws, {epochs:.1f} epochs", "info"


def _refuse_if_ever_saved(session: Session) -> None:
    """A run that was saved and has no checkpoint has lost them: it must not start over silently."""
    saved = [r["step"] for r in read_record(session.folder / RECORD_NAME) if r["kind"] == "save"]
    if saved:
        raise CheckpointError(
            f"This run was saved at step {max(saved)}, and its checkpoints are gone",
            where=str(session.store.folder),
            why="it will not start over silently",
            fix="bring them back, or start over in another run folder",
        )


def _recorded_after(record: Path, step: int) -> tuple[Replay, float]:
    """What an earlier incarnation recorded past a checkpoint: loss and gradient norm by step, and the
    seconds that were spent by then, which were paid for although they must be repeated."""
    records = read_record(record)
    steps = [r for r in records if r["kind"] == "step" and r["step"] > step]
    kinds = ("tasks", "tasks_ended")
    tasks = [r for r in records if r["kind"] in kinds and r["step"] >= step]  # measured after the save
    spent = max((r.get("train_seconds", 0.0) for r in (*steps, *tasks)), default=0.0)
    return {r["step"]: (r["loss"], r["grad_norm"]) for r in steps}, spent


def _differences(checkpoint: Checkpoint, session: Session) -> list[str]:
    """What of the environment that the bits depend on is not as it was."""
    now = session.environment(checkpoint.manifest.stage)
    before: dict[str, Any] = checkpoint.manifest.environment
    return [
        f"{key} was {before.get(key)}, is {now.get(key)}: the bits may differ from a straight run"
        for key in sorted(now.keys() | before.keys())
        if now.get(key) != before.get(key)
    ]


def _judge_drift(session: Session, checkpoint: Checkpoint, accept_changes: bool) -> list[str]:
    """Refuse another tokenizer, other data, another recipe; what was accepted that changes the run."""
    manifest = checkpoint.manifest
    if manifest.tokenizer_hash != session.dataset.tokenizer_hash:
        raise DriftError(
            "the tokenizer is not the one this run was started with",
            where=str(session.dataset.tokenizer_path),
            why="its token ids mean other text than the model has learnt",
            fix="point data.path at the data this run was started with, or start a new run",
        )
    accepted = []
    if manifest.data_fingerprint != session.dataset.fingerprint:
        changed = _what_changed(session, manifest.data_fingerprint)
        if not accept_changes:
            raise DriftError(
                f"the data is not what this run was started with: {changed}",
                where=session.recipe.data.path,
                why="the batch of a step is a function of the data; its order would change",
                fix="restore the data folder, or go on with the new data: --accept-changes",
            )
        accepted.append(f"the data changed, text may be repeated or left out: {changed}")
    if not _same_init(session.recipe.init, manifest.init):
        if not accept_changes:
            raise DriftError(
                "init does not name the weights that this run was started from",
                where=session.recipe.init or "init",
                why="the recipe would no longer say where the weights come from",
                fix="name that checkpoint itself, not a run that trains on, or go on with --accept-changes",
            )
        accepted.append("init changed: the run was started from other weights")
    old = stored_recipe(session.folder)
    if old is None and manifest.recipe_hash != resolve_hash(session.recipe):
        if not accept_changes:
            raise DriftError(
                "the recipe is not the one this run was started with",
                where=str(session.folder / RECIPE_NAME),
                why="the file that would show the difference is gone; the checkpoint knows only its hash",
                fix="bring it back, or go on with this recipe: --accept-changes",
            )
        accepted.append("the recipe changed; what was different is not known")
    if old is not None:
        changes = recipe_diff(old, session.recipe, manifest.stage)
        _refuse_changes(changes, session.folder / RECIPE_NAME, accept_changes)
        _refuse_shorter_stage(session.recipe, checkpoint)
        accepted += [f"recipe changed: {_show(c)}" for c in changes if c.cls == "flag"]
        for change in changes:
            if change.cls == "free":
                session.event(manifest.step, f"recipe changed: {_show(change)}")
    return accepted


def _what_changed(session: Session, fingerprint: str) -> str:
    """What of the data is not as it was when it had this fingerprint."""
    then = stored_manifest(session.folder, fingerprint)
    if then is None:
        return f"{DATA_MANIFEST} of the run, which would tell what, is gone or of other data"
    return "; ".join(data_changes(then, session.dataset.manifest))


def _same_init(named: str | None, began: str | None) -> bool:
    """Whether the recipe still starts from what the run started from, as far as that is still there."""
    if named is None or began is None:
        return named is None and began is None
    return is_still_there(Path(named), began)


def _refuse_changes(changes: list[Change], stored: Path, accept_changes: bool) -> None:
    forbidden = [c for c in changes if c.cls == "forbidden"]
    if forbidden:
        raise DriftError(
            "the recipe changed under the run: " + "; ".join(map(_show, forbidden)),
            where=str(stored),
            why="the weights or the order of the data so far follow from it",
            fix="undo the change and put it into a new stage, or start a new run",
        )
    flagged = [c for c in changes if c.cls == "flag"]
    if flagged and not accept_changes:
        raise DriftError(
            "the recipe changed under the run: " + "; ".join(map(_show, flagged)),
            where=str(stored),
            why="the run would go on differently",
            fix="undo the change, or pass --accept-changes",
        )


def _refuse_shorter_stage(recipe: Recipe, checkpoint: Checkpoint) -> None:
    """A stage cannot end before where it is: the next one would draw text that was already seen."""
    manifest = checkpoint.manifest
    stage = recipe.stages[manifest.stage]
    if stage.steps < manifest.stage_step:
        raise DriftError(
            f"stage {stage.name} has {stage.steps} steps, and {manifest.stage_step} of it are done",
            where=f"stages.{stage.name}.tokens",
            why="the next stage begins in the data where this one ends",
            fix=f"write tokens = {manifest.stage_step * stage.tokens_per_step} or more",
        )


def _show(change: Change) -> str:
    return f"{change.key}: {change.old} -> {change.new}"
