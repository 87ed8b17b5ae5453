"""One stage of training, from its current step to its end. Read this file to understand the whole.

A step: draw the batch that belongs to this step number, forward and backward in micro-batches, judge the
loss and the gradient norm, apply the update or skip it, write it down. Nothing else decides what the next
step does, so a run that is killed and started again computes the same bits.
"""

from __future__ import annotations

import math
import time
from typing import Any, Literal

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from growlm.errors import DataError, DiskError, GrowLMError, LimitReached, Preempted
from growlm.plan.flops import flops_per_token
from growlm.plan.progress import remaining_flops
from growlm.testing.faults import fault_point
from growlm.train.console import status_line
from growlm.train.guard import decide
from growlm.train.schedule import learning_rate, rewarm
from growlm.train.session import DTYPES, Session, memory_bytes
from growlm.train.state import TrainState
from growlm.train.validate import generate, validate


def train_stage(session: Session, state: TrainState) -> None:
    """Train the current stage to its end and save.

    Raises Preempted after saving, when asked to stop or at the cost limit; GrowLMError when too many
    steps in a row had to be skipped; DiskError when the last save fails.
    """
    stage = session.recipe.stages[state.progress.stage]
    more = state.progress.stage + 1 < len(session.recipe.stages)
    state.model.compute_dtype = DTYPES[session.recipe.train.precision]
    while state.progress.stage_step < stage.steps:
        started = time.perf_counter()
        try:
            step(session, state, started)
        except DataError:  # a damaged shard, found before anything of this step was done
            save(session, state)
            raise
        fault_point("train.after_step")
        last = state.progress.stage_step == stage.steps
        if last or _evaluation_is_due(session, state):
            evaluate(session, state)
        state.progress.train_seconds += time.perf_counter() - started
        stop = _why_stop(session, state)
        if last or stop:
            save(session, state, "before_growth" if last and more else None)
        elif _save_is_due(session, state):
            _save_or_go_on(session, state)
        if stop and (more or not last):
            raise stop


def step(session: Session, state: TrainState, started: float) -> None:
    """One optimizer step, applied or skipped, and its record."""
    p, recipe = state.progress, session.recipe
    ramp = state.ramp
    mask = ramp.value(p.stage_step + 1) if ramp else 1.0
    state.model.set_mask(ramp, mask)
    lr = learning_rate(recipe, p.stage, p.stage_step)
    loss, norm = forward_backward(session, state)
    grad_norm = norm.item()
    skip = decide(torch.tensor(loss, device=norm.device), norm, state.guard.limits(p.stage_step))
    reason = state.guard.take(loss, grad_norm, bool(skip), p.stage_step)
    if reason is None:
        clip_grads_with_norm_(state.model.parameters(), recipe.optim.grad_clip, norm)
        p.updates += 1
        grads = {n: p.grad for n, p in state.model.named_parameters() if p.grad is not None}
        state.optimizer.step(grads, lr, p.updates, _rewarm(session, state))
    state.model.zero_grad(set_to_none=True)
    stage = recipe.stages[p.stage]
    p.step, p.stage_step = p.step + 1, p.stage_step + 1
    p.skipped += reason is not None
    p.tokens += stage.tokens_per_step
    p.flops += stage.tokens_per_step * flops_per_token(state.config, stage.seq_len)
    _record_step(session, state, loss, grad_norm, lr, mask, reason, time.perf_counter() - started)


def forward_backward(session: Session, state: TrainState) -> tuple[float, torch.Tensor]:
    """Gradients of the mean loss over the batch of this step; (loss, global gradient norm)."""
    p = state.progress
    stage = session.recipe.stages[p.stage]
    x, y = (torch.from_numpy(a).to(session.device) for a in session.mixture.batch(p.stage, p.stage_step))
    micro = stage.micro_batch_size or stage.batch_size
    pieces = stage.batch_size // micro
    total = torch.zeros((), device=session.device)
    for tokens, targets in zip(x.split(micro), y.split(micro), strict=True):
        loss = state.model.loss(tokens, targets) / pieces
        loss.backward()
        total += loss.detach()
    grads = [p.grad for p in state.model.parameters() if p.grad is not None]
    return total.item(), get_total_norm(grads)


def evaluate(session: Session, state: TrainState) -> None:
    """Validation loss per source, and a continuation of every prompt, into the record."""
    p, settings = state.progress, session.recipe.eval
    stage = session.recipe.stages[p.stage]
    at: dict[str, Any] = {"step": p.step, "stage": p.stage, "tokens": p.tokens}
    state.model.set_mask(state.ramp, state.mask)
    losses = validate(
        state.model,
        session.dataset,
        sorted(session.recipe.mixture_of(p.stage)),
        stage.seq_len,
        settings.tokens,
        stage.micro_batch_size or stage.batch_size,
    )
    session.recorder.append("valid", **at, losses=losses)
    shown = "  ".join(f"{source} {loss:.4f}" for source, loss in losses.items())
    session.console.say(f"validation at step {p.step}: {shown}")
    for prompt in settings.prompts if settings.sample_tokens else []:
        text = generate(
            state.model,
            session.tokenizer,
            prompt,
            tokens=settings.sample_tokens,
            context=stage.seq_len,
            seed=session.recipe.seed,
        )
        session.recorder.append("sample", **at, prompt=prompt, text=text)


def save(session: Session, state: TrainState, boundary: Literal["before_growth"] | None = None) -> None:
    """Commit a checkpoint and write it down. Raises DiskError."""
    started = time.perf_counter()
    path = state.save(session.store, session.facts, boundary)
    seconds = time.perf_counter() - started
    state.progress.train_seconds += seconds
    session.last_save, session.save_seconds = time.monotonic(), seconds
    size = sum(f.stat().st_size for f in path.iterdir())
    session.recorder.append("save", step=state.progress.step, path=path.name, seconds=seconds, bytes=size)


def _save_or_go_on(session: Session, state: TrainState) -> None:
    """A full disk costs a save in mid-stage, not the run; it is tried again after the interval."""
    try:
        save(session, state)
    except DiskError as error:
        session.last_save = time.monotonic()
        session.event(state.progress.step, f"not saved, training goes on: {error}", "warning")


def _save_is_due(session: Session, state: TrainState) -> bool:
    """By steps if the recipe says so, and by the clock, never spending over 1 % of the time on it."""
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


def _why_stop(session: Session, state: TrainState) -> Preempted | None:
    """The reason to stop after this step: a signal, or the cost limit."""
    budget, cost = session.recipe.budget, session.cost(state.progress.train_seconds)
    what = f"stopped at step {state.progress.step}"
    if session.stop:
        return Preempted(f"{what}: received {session.stop.name}", fix="the same command continues")
    if budget.max_cost is not None and cost is not None and cost >= budget.max_cost:
        return LimitReached(
            f"{what}: the run has cost {cost:.2f} {budget.currency}, the limit is {budget.max_cost:.2f}",
            fix="run the same command with a higher budget.max_cost to continue",
        )
    return None


def _record_step(
    session: Session,
    state: TrainState,
    loss: float,
    grad_norm: float,
    lr: float,
    mask: float,
    reason: str | None,
    seconds: float,
) -> None:
    """The record of a step, the terminal line, and the comparison with what a killed run recorded."""
    p, recipe = state.progress, session.recipe
    stage = recipe.stages[p.stage]
    speed = stage.tokens_per_step * flops_per_token(state.config, stage.seq_len) / seconds
    record: dict[str, Any] = {
        "step": p.step,
        "stage": p.stage,
        "tokens": p.tokens,
        "loss": loss if math.isfinite(loss) else None,
        "lr": lr,
        "grad_norm": grad_norm if math.isfinite(grad_norm) else None,
        "tokens_per_second": stage.tokens_per_step / seconds,
        "step_seconds": seconds,
        "train_seconds": p.train_seconds + seconds,
        "flops": p.flops,
        "mfu": speed / (session.peak_tflops * 1e12),
        "memory_bytes": memory_bytes(session.device),
        "mask": mask,
        "applied": reason is None,
        "cost": session.cost(p.train_seconds + seconds),
    }
    session.recorder.append("step", **record)
    _compare_with_replay(session, record)
    if reason:
        session.event(p.step, f"step {p.step} skipped: {reason}", "warning")
        if state.guard.skips_in_row >= recipe.guard.max_skips_in_row:
            raise GrowLMError(
                f"{state.guard.skips_in_row} steps in a row had to be skipped",
                where=f"step {p.step}, stage {stage.name}",
                why=reason,
                fix="lower optim.lr or look at the data of these steps; the last checkpoint is intact",
            )
    left = remaining_flops(recipe, p.stage, p.stage_step * stage.tokens_per_step) / speed
    line = status_line(
        record,
        stages=len(recipe.stages),
        left=left,
        since_save=time.monotonic() - session.last_save,
        currency=recipe.budget.currency,
    )
    session.console.status(line, now=p.stage_step in (1, stage.steps))


def _compare_with_replay(session: Session, record: dict[str, Any]) -> None:
    """Compare a step with what the killed incarnation recorded for it; say so after the last one."""
    step = record["step"]
    if step not in session.replay:
        return
    session.replayed += 1
    identical = session.replay[step] == (record["loss"], record["grad_norm"])
    if not identical:
        session.event(step, f"resumed run differs from the one before at step {step}", "warning")
        session.replay.clear()
    if not identical or step == max(session.replay):
        session.recorder.append("verified", step=step, replayed=session.replayed, identical=identical)
        if identical:
            session.console.say(f"resume verified: {session.replayed} steps replayed, bit-identical")
