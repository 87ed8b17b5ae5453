"""One stage of training, from its current step to its end. Read this file to understand the whole.

A step: draw the batch that belongs to this step number, forward and backward in micro-batches, judge the
loss and the gradient norm, apply the update or skip it, write it down. Nothing else decides what the next
step does, so a run that is killed and started again computes the same bits.

Over several ranks every rank runs this same loop on its share (growlm/parallel/engine.py). What only one of
them knows (a signal, a damaged shard, the clock) becomes common knowledge once a step, in `_agree`. On a GPU
nothing waits for the device: a step is judged there, and read back while the next one computes (`tally`).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from growlm.data.mixture import Batch
from growlm.errors import DataError, DiskError, GrowLMError, LimitReached, Preempted
from growlm.model.loss import Learning
from growlm.plan.flops import flops_per_token
from growlm.testing.faults import fault_point
from growlm.train.evaluate import evaluate
from growlm.train.guard import decide
from growlm.train.measure import measure_missing, measure_tasks, tasks_are_due
from growlm.train.saver import Saved
from growlm.train.schedule import learning_rate, rewarm
from growlm.train.session import Session
from growlm.train.state import TrainState
from growlm.train.tally import Taken, Tally

ANY = (math.inf, math.inf)


@dataclass(frozen=True)
class Turn:
    """What all ranks do between two steps."""

    stop: GrowLMError | None = None
    save: bool = False
    advance: bool = False
    """No rank's thread is busy with the save that is under way."""


def train_stage(session: Session, state: TrainState) -> None:
    """Train the current stage to its end and save.

    Raises Preempted after saving, when asked to stop, LimitReached at the cost limit; GrowLMError when too
    many steps in a row had to be skipped; DataError after saving if text is damaged; DiskError when the last
    save fails.
    """
    try:
        _train_steps(session, state)
    except GrowLMError as error:
        if session.world.size == 1 or error.agreed:  # then every rank is here
            _finish_pending(session, state)
        raise


def _train_steps(session: Session, state: TrainState) -> None:
    p, stage = state.progress, session.recipe.stages[state.progress.stage]
    more = p.stage + 1 < len(session.recipe.stages)
    apart = session.recipe.data.document_mask
    state.engine.keep_documents_apart(session.tokenizer.eos_id if apart else None)
    tally = Tally(session, state)
    measured = measure_missing(session, state)
    turn = _agree(session, state, tally)  # the first batch is there, on all ranks
    if turn.stop and (more or p.stage_step < stage.steps or not measured):
        raise turn.stop
    while p.stage_step < stage.steps:
        with session.watchdog.phase("step", p.step + 1):
            started = time.perf_counter()
            step(session, state, tally, started)
            fault_point("train.after_step")
            last = p.stage_step == stage.steps
            if last or _evaluation_is_due(session, state):
                tally.settle()
                with session.watchdog.phase("eval", p.step):
                    evaluate(session, state)
            elif not session.lags:
                tally.settle()
            p.train_seconds += time.perf_counter() - started
            if last:  # before anything that takes long
                with session.watchdog.phase("save", p.step):
                    save(session, state, "before_growth" if more else None)
            if tasks_are_due(session, state):
                tally.settle()
                measured = measure_tasks(session, state)
            turn = _agree(session, state, tally)
            with session.watchdog.phase("save", p.step):
                if turn.stop and not last:
                    tally.settle()
                    save(session, state)
                elif not last:
                    _save_on_the_way(session, state, tally, turn)
        if turn.stop and (more or not last or not measured):
            raise turn.stop


def step(session: Session, state: TrainState, tally: Tally, started: float) -> None:
    """One optimizer step, applied or skipped on the device; `tally` will know which."""
    p, recipe = state.progress, session.recipe
    ramp, stage = state.ramp, recipe.stages[p.stage]
    mask = ramp.value(p.stage_step + 1) if ramp else 1.0
    state.engine.set_mask(ramp, mask)
    lr = learning_rate(recipe, p.stage, p.stage_step)
    rows = state.engine.sequences(stage.batch_size)
    batch = session.batches.take(p.stage, p.stage_step, rows)
    x, y = _to(batch.tokens, session.device), _to(batch.targets, session.device)
    loss, norm = state.engine.forward_backward(x, y, _learning(session, batch))
    tally.settle()  # the step before: this one's limits and update number follow from it
    alternating = stage.objectives == "alternating"  # each turn has losses and gradients of its own size
    skip = decide(loss, norm, ANY if alternating else state.guard.limits(p.stage_step))
    state.engine.scale_grads((recipe.optim.grad_clip / (norm + 1e-6)).clamp(max=1.0).float())
    state.optimizer.step(state.engine.grads, lr, p.updates + 1, _rewarm(session, state), skip)
    state.engine.zero_grad()
    values = torch.cat((torch.stack((loss, norm, skip.double())), state.engine.group_losses))
    taken = Taken(values, p.stage_step, lr, mask, started)
    p.step, p.stage_step = p.step + 1, p.stage_step + 1
    p.tokens += stage.tokens_per_step
    p.flops += stage.tokens_per_step * flops_per_token(state.config, stage.seq_len)
    tally.take(taken)


def save(session: Session, state: TrainState, boundary: Literal["before_growth"] | None = None) -> None:
    """Save and wait for it. Raises DiskError."""
    _finish_pending(session, state)
    _begin_save(session, state, boundary)
    _put_on_record(session, state, session.saver.finish())


def _save_on_the_way(session: Session, state: TrainState, tally: Tally, turn: Turn) -> None:
    """Begin a save, or take the one that is under way a step further.

    A full disk costs a save in mid-stage, not the run; it is tried again after the interval.
    """
    try:
        if turn.save:
            tally.settle()
            _finish_pending(session, state)
            _begin_save(session, state)
        elif turn.advance and (saved := session.saver.advance()):
            _put_on_record(session, state, saved)
    except GrowLMError as error:
        _not_saved(session, state, error)


def _begin_save(
    session: Session, state: TrainState, boundary: Literal["before_growth"] | None = None
) -> None:
    """Copy the state and start to write it; training may go on. Raises DiskError."""
    session.last_save = time.monotonic()
    facts = session.facts(state.progress.stage)
    session.saver.begin(state.progress.step, state.shards(), state.fields(facts, boundary))


def _finish_pending(session: Session, state: TrainState) -> None:
    """Wait for the save that is under way, if there is one; if it fails, a newer one follows at once."""
    if session.saver.pending:
        try:
            _put_on_record(session, state, session.saver.finish())
        except GrowLMError as error:
            _not_saved(session, state, error)


def _put_on_record(session: Session, state: TrainState, saved: Saved) -> None:
    state.progress.train_seconds += saved.blocked_seconds
    session.save_seconds = saved.blocked_seconds
    session.recorder.append(
        "save",
        step=saved.step,
        path=saved.path.name,
        seconds=saved.seconds,
        blocked_seconds=saved.blocked_seconds,
        bytes=saved.bytes,
    )


def _not_saved(session: Session, state: TrainState, error: GrowLMError) -> None:
    """Go on after a full disk, be it another rank's; raise every other error."""
    if error.exit_code != DiskError.exit_code:
        raise error
    session.event(state.progress.step, f"not saved, training goes on: {error}", "warning")


def _agree(session: Session, state: TrainState, tally: Tally) -> Turn:
    """Read this rank's share of the next step, and agree with all ranks on what comes before it.

    Raises DataError, after saving, if any rank's share is damaged.
    """
    p, stage = state.progress, session.recipe.stages[state.progress.stage]
    failure: DataError | None = None
    if p.stage_step < stage.steps:
        try:
            session.batches.prepare(p.stage, p.stage_step, state.engine.sequences(stage.batch_size))
        except DataError as error:
            failure = error
    failed, stop, limit, due, busy = session.world.control(
        failure is not None,
        bool(session.stop) or session.world.orphaned,
        session.world.main and session.over_budget(p.train_seconds),
        session.world.main and _save_is_due(session, state),
        session.saver.pending and not session.saver.is_written(),
    )
    if failed:
        tally.settle()
        if p.stage_step:
            with session.watchdog.phase("save", p.step):
                save(session, state)
        with session.world.together():
            if failure:
                raise failure
    return Turn(_why_stop(session, state, stop, limit), due, session.saver.pending and not busy)


def _save_is_due(session: Session, state: TrainState) -> bool:
    """By steps if the recipe says so, and by the clock, holding up training for at most 1 % of the time."""
    settings = session.recipe.checkpoint
    if settings.every_steps and state.progress.stage_step % settings.every_steps == 0:
        return True
    interval = max(settings.every_seconds, 100 * session.save_seconds)
    return time.monotonic() - session.last_save >= interval


def _evaluation_is_due(session: Session, state: TrainState) -> bool:
    """Each time the tokens pass a multiple of eval.every_tokens."""
    every, tokens = session.recipe.eval.every_tokens, state.progress.tokens
    per_step = session.recipe.stages[state.progress.stage].tokens_per_step
    return tokens // every > (tokens - per_step) // every


def _rewarm(session: Session, state: TrainState) -> dict[int, float] | None:
    """The factor on the learning rate of the part that the last growth added, if the recipe asks."""
    p, recipe = state.progress, session.recipe
    factor = rewarm(recipe.growth_of(p.stage), p.stage_step, recipe.stages[p.stage].steps)
    return {state.lineage[-1]["update"]: factor} if state.ramp and factor != 1 else None


def _why_stop(session: Session, state: TrainState, stop: bool, limit: bool) -> GrowLMError | None:
    """What to raise after this step, on this rank: a signal came, or the cost limit is reached."""
    what, budget = f"stopped at step {state.progress.step}", session.recipe.budget
    if stop:
        why = f"received {session.stop.name}" if session.stop else "another rank was asked to stop"
        if session.world.orphaned:
            why = "the launcher of the ranks is gone"
        error = Preempted(f"{what}: {why}", fix="the same command continues")
        return session.world.common(error)
    if limit:
        cost = session.cost(state.progress.train_seconds)
        error = LimitReached(
            f"{what}: the run has cost {cost:.2f} {budget.currency}, the limit is {budget.max_cost:.2f}",
            fix="run the same command with a higher budget.max_cost to continue",
        )
        return session.world.common(error)
    return None


def _learning(session: Session, batch: Batch) -> Learning | None:
    """What of a batch is learnt; None if all of it is, alike."""
    if batch.weights is None:
        return None
    classes = session.dataset.manifest.tokenizer.signal_ids
    if session.recipe.objectives.head == "tokens":
        classes = None
    learning = Learning(torch.from_numpy(batch.weights), torch.from_numpy(batch.objective), classes)
    return learning if session.device.type == "cpu" else learning.to(session.device)


def _to(ids: np.ndarray, device: torch.device) -> Tensor:
    """Token ids on the device, without waiting for what it computes."""
    tensor = torch.from_numpy(ids)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
