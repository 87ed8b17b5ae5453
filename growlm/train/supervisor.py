"""A run from its first command to its end: stage, grow, next stage; the same command continues it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

import growlm
from growlm.checkpoint.lock import RunLock
from growlm.checkpoint.manifest import MANIFEST, Manifest
from growlm.checkpoint.store import Checkpoint, CheckpointStore
from growlm.errors import CheckpointError, GrowLMError, LimitReached, Preempted, RecipeError
from growlm.model.parameters import n_parameters
from growlm.parallel.watchdog import Watchdog, read_stacks
from growlm.parallel.world import World, join
from growlm.plan.layout import Layout
from growlm.recipe.check import check_recipe
from growlm.recipe.keys import leaves, show_key
from growlm.recipe.schema import Recipe
from growlm.testing.faults import fault_point
from growlm.train.batches import Batches
from growlm.train.console import Console, count
from growlm.train.grow import Batch, grow_checkpoint
from growlm.train.initial import Initial, find_initial
from growlm.train.loop import train_stage
from growlm.train.record import RECORD_NAME, Recorder, next_incarnation
from growlm.train.saver import Saver
from growlm.train.session import Data, Session, open_data, peak_tflops
from growlm.train.signals import StopRequest
from growlm.train.start import start
from growlm.train.state import Progress, TrainState, layout_of
from growlm.train.tasks import PrepareTasks
from growlm.train.validate import held_out
from growlm.train.verify import latest_valid

CERTIFICATE_SEQUENCES = 4
ALL_THE_TIME = 1e9  # seconds


@dataclass(frozen=True)
class Outcome:
    """How a command ended on this rank: the run folder and its last step."""

    folder: Path
    step: int
    rank: int


def run(
    recipe: Recipe, folder: Path, *, accept_changes: bool = False, prepare_tasks: PrepareTasks | None = None
) -> Outcome:
    """Train `recipe` in `folder` to its end, from wherever the folder stands, with the ranks there are.

    `prepare_tasks` knows the tasks of `eval.tasks`; without it, as in a search, they are not measured.

    Raises RecipeError or DataError before anything is touched; Preempted when it was stopped and saved;
    LockError if another process owns the folder; DriftError if recipe, data or tokenizer changed in a way
    the run cannot follow; other GrowLMErrors. With several ranks rank 0 raises them, the others Elsewhere.
    """
    check_recipe(recipe)
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    with join(recipe.train.device, recipe.timeouts.setup) as world, ExitStack() as stack:
        watchdog = stack.enter_context(Watchdog(None, world.rank, _timeouts(recipe, world)))
        with watchdog.phase("setup"):
            with world.together():
                _refuse_checkpoints(folder)
                data = open_data(recipe)
                tasks = prepare_tasks(recipe) if prepare_tasks and recipe.eval.tasks else None
                layouts = [layout_of(recipe, index, world) for index in range(len(recipe.stages))]
                begun = bool(CheckpointStore(folder / "checkpoints", recipe.checkpoint.keep).checkpoints())
            begun = any(world.exchange(begun))
            initial = None if begun else find_initial(recipe, data[2].known_as, world)
            world.same(_in_common(recipe, data, layouts, initial))
            with world.together():
                if world.main:
                    stack.enter_context(RunLock(folder))
            session = stack.enter_context(_session(recipe, folder, world, data, watchdog))
            session.tasks = tasks
            _report_frozen(session)
            state = start(session, initial, accept_changes)
        return _train(session, state)


def _timeouts(recipe: Recipe, world: World) -> dict[str, float]:
    """Seconds by phase; one process alone waits for nobody and has all the time."""
    given = recipe.timeouts.model_dump()
    return given if world.size > 1 else dict.fromkeys(given, ALL_THE_TIME)


def _report_frozen(session: Session) -> None:
    """Put on record which ranks froze in an earlier start, and have stacks written here from now on."""
    if session.world.size == 1:
        return
    stacks = session.folder / "stacks"
    with session.world.together():
        for frozen in read_stacks(stacks) if session.world.main else ():
            what = f"rank {frozen.rank} ran out of time in phase {frozen.phase}; its stacks: {frozen.path}"
            if not frozen.path:
                what = f"rank {frozen.rank} wrote no stacks when the others ran out of time: look there first"
            session.event(frozen.step, what, "warning")
    session.watchdog.attach(stacks)


def _recipe_fields(recipe: Recipe) -> dict[str, str]:
    """Every field; where the data lies is each machine's own affair."""
    fields = {f"recipe {show_key(key)}": str(value) for key, value in leaves(recipe.model_dump()).items()}
    return {name: value for name, value in fields.items() if name != "recipe data.path"}


def _refuse_checkpoints(folder: Path) -> None:
    if (folder / MANIFEST).is_file() or any(folder.glob("step-*")):
        raise RecipeError(
            "this is a folder of checkpoints, not of a run",
            where=str(folder),
            why="a run that started here would ignore them",
            fix=f'name another folder with --run; to train it on, write init = "{folder}" in the recipe',
        )


def _in_common(recipe: Recipe, data: Data, layouts: list[Layout], initial: Initial | None) -> dict[str, str]:
    """What must be the same on every rank."""
    return {
        "GrowLM": growlm.__version__,
        "torch": torch.__version__,
        **_recipe_fields(recipe),
        "data": data[0].fingerprint,
        "tokenizer": data[0].tokenizer_hash,
        "layouts": repr(layouts),
        "initial weights": initial.hash if initial else "none",
    }


@contextmanager
def _session(recipe: Recipe, folder: Path, world: World, data: Data, watchdog: Watchdog) -> Iterator[Session]:
    """Open everything that a run works with, and close it whatever happens. Rank 0 keeps the record."""
    dataset, mixture, tokenizer = data
    record = folder / RECORD_NAME if world.main else Path(os.devnull)
    incarnation = next_incarnation(record) if world.main else 0
    store = CheckpointStore(folder / "checkpoints", recipe.checkpoint.keep)
    with ExitStack() as stack:
        with world.together():
            recorder = stack.enter_context(Recorder(record, incarnation))
        saver = stack.enter_context(Saver(store, world))
        yield Session(
            recipe=recipe,
            folder=folder,
            dataset=dataset,
            mixture=mixture,
            batches=Batches(mixture),
            tokenizer=tokenizer,
            world=world,
            watchdog=watchdog,
            store=store,
            saver=saver,
            recorder=recorder,
            console=stack.enter_context(Console(quiet=not world.main)),
            stop=stack.enter_context(StopRequest()),
            peak_tflops=peak_tflops(recipe, world.device) if world.main else 1.0,
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
            state.engine.close()  # the certificate needs the room for the old and the new model
            session.saver.release()
            del state
            with session.watchdog.phase("save", progress.step):
                state = _grow(session, progress)
            state.progress.train_seconds = max(state.progress.train_seconds, progress.train_seconds)
            progress = state.progress
        status = "done"
    except GrowLMError as error:
        status = "preempted" if error.exit_code in (Preempted.exit_code, LimitReached.exit_code) else "failed"
        raise
    finally:
        session.recorder.append("end", step=progress.step, status=status)
    session.console.say(f"done: {progress.step} steps, {count(progress.tokens)} tokens")
    return Outcome(session.folder, progress.step, session.world.rank)


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
        layout=asdict(state.engine.layout),
    )
    c = state.config
    shape = f"d_model {c.d_model}, heads {c.n_heads}/{c.n_kv_heads}, ffn {c.d_ff}, layers {c.n_layers}"
    session.console.say(f"stage {p.stage + 1} {stage.name}: {count(parameters)} parameters, {shape}")
    if session.world.size > 1:
        layout = state.engine.layout
        over = f"dp {layout.dp} x tp {layout.tp} x pp {layout.pp}, ZeRO-{layout.zero}"
        session.console.say(f"over {session.world.size} ranks: {over}")


def _grow(session: Session, progress: Progress) -> TrainState:
    """Grow the last checkpoint into the next stage and go on from the grown one, in the next layout."""
    fault_point("train.before_growth")
    world, recipe, index = session.world, session.recipe, progress.stage + 1
    source = _end_of_stage(session, progress)
    with world.together():
        batch = _certificate_batch(session, index)
    path, _ = grow_checkpoint(
        source,
        recipe.model_config_of(index),
        recipe.growth_of(index),
        session.store,
        seed=recipe.seed + index,
        batch=batch,
        batches=_training_batches(session, index),
        facts=session.facts(index),
        world=world,
    )
    fault_point("train.after_growth")
    with world.together():
        grown = Checkpoint(path, Manifest.load(path / MANIFEST))
    return TrainState.load(grown, recipe, world)


def _end_of_stage(session: Session, progress: Progress) -> Checkpoint:
    report = lambda why: session.event(progress.step, why, "warning")  # noqa: E731
    source = latest_valid(session.store, session.world, report)
    if source is None or source.manifest.step != progress.step:
        error = CheckpointError(
            "the checkpoint at the end of the stage is gone or damaged",
            where=str(session.store.folder),
            fix="the same command goes on from the checkpoint before it",
        )
        raise session.world.common(error)
    return source


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
    found = [held_out(session.dataset, s, length, wanted, torch.device("cpu")) for s in sources]
    return torch.cat([one.tokens for one in found]), torch.cat([one.targets for one in found])


def _training_batches(session: Session, stage: int) -> Iterator[Batch]:
    """The batches of a stage in order, for a growth that learns; the stage will see them again."""
    for step in range(session.recipe.stages[stage].steps):
        batch = session.mixture.batch(stage, step)
        x, y = (torch.from_numpy(a).to(session.device) for a in (batch.tokens, batch.targets))
        yield x, y
