"""What came of a step: read back from the device, counted, judged and put on record.

On a GPU the numbers of a step are read while the next one computes. The optimizer of that next step needs
them (how many updates were applied, what the guard accepts), so at most one step is open at a time.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from growlm.errors import Diverged
from growlm.plan.flops import flops_per_token
from growlm.plan.progress import planned_mfus, remaining_seconds
from growlm.recipe.objectives import OBJECTIVES
from growlm.train.console import status_line
from growlm.train.session import Session, memory_bytes
from growlm.train.state import TrainState


@dataclass(frozen=True)
class Taken:
    """A step that the device was told to do.

    `values`, fp64: loss, gradient norm, 1 if it is skipped, and the summed loss of each objective.
    """

    values: Tensor
    stage_step: int
    lr: float
    mask: float
    started: float


class Tally:
    """Keeps the books of a stage."""

    def __init__(self, session: Session, state: TrainState) -> None:
        self._session, self._state = session, state
        self._open: tuple[Taken, Tensor, torch.cuda.Event | None, dict[str, Any]] | None = None
        self._settled = 0.0  # when the last step was settled
        device = str(session.environment(state.progress.stage)["device"])
        self._mfus = planned_mfus(session.recipe, device, session.world.size)

    def take(self, taken: Taken) -> None:
        """A step is on its way; its numbers start to come back."""
        p = self._state.progress
        where: dict[str, Any] = {"step": p.step, "stage": p.stage, "tokens": p.tokens, "flops": p.flops}
        where["train_seconds"] = p.train_seconds  # without this step
        if taken.values.is_cuda:
            host = taken.values.to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
            self._open = taken, host, arrived, where
        else:
            self._open = taken, taken.values, None, where

    def settle(self) -> None:
        """Wait for the open step, if there is one, count it and put it on record.

        Raises Diverged if too many steps in a row had to be skipped.
        """
        if self._open is None:
            return
        taken, values, arrived, where = self._open
        self._open = None
        if arrived is not None:
            arrived.synchronize()
        loss, grad_norm, skipped, *sums = values.tolist()
        state = self._state
        reason = state.guard.take(loss, grad_norm, bool(skipped), taken.stage_step)
        state.progress.updates += reason is None
        state.progress.skipped += reason is not None
        now = time.perf_counter()
        seconds, self._settled = now - max(taken.started, self._settled), now
        where |= self._objectives(taken, loss, sums)
        self._record(taken, where, loss, grad_norm, reason, seconds)

    def _objectives(self, taken: Taken, loss: float, sums: list[float]) -> dict[str, Any]:
        """Loss and tokens so far of each objective, where a run has others than language."""
        mixture, stage = self._session.mixture, self._state.progress.stage
        drawn = mixture.drawn(stage, taken.stage_step + 1)
        if set(drawn) == {"language"}:
            return {}
        counts = mixture.learnt_tokens(stage, taken.stage_step)
        means = {o: total / counts[o] for o, total in zip(OBJECTIVES, sums, strict=True) if counts.get(o)}
        if mixture.plain(stage):
            means = {"language": loss}
        return {"objectives": {o: {"loss": means.get(o), "tokens": n} for o, n in drawn.items()}}

    def _record(
        self,
        taken: Taken,
        where: dict[str, Any],
        loss: float,
        grad_norm: float,
        reason: str | None,
        seconds: float,
    ) -> None:
        """The record of a step, the terminal line, and the comparison with what a killed run recorded."""
        session, state = self._session, self._state
        p, recipe = state.progress, session.recipe
        stage = recipe.stages[p.stage]
        speed = stage.tokens_per_step * flops_per_token(state.config, stage.seq_len) / seconds
        spent = where["train_seconds"] + seconds
        record: dict[str, Any] = where | {
            "loss": loss if math.isfinite(loss) else None,
            "lr": taken.lr,
            "grad_norm": grad_norm if math.isfinite(grad_norm) else None,
            "tokens_per_second": stage.tokens_per_step / seconds,
            "step_seconds": seconds,
            "train_seconds": spent,
            "mfu": speed / (session.peak_tflops * 1e12 * session.world.size),
            "memory_bytes": memory_bytes(session.device),
            "mask": taken.mask,
            "applied": reason is None,
            "cost": session.cost(spent),
        }
        session.recorder.append("step", **record)
        _compare_with_replay(session, record)
        if reason:
            session.event(where["step"], f"step {where['step']} skipped: {reason}", "warning")
            self._refuse_to_go_on(where["step"], reason)
        tokens = (taken.stage_step + 1) * stage.tokens_per_step
        left = remaining_seconds(recipe, p.stage, tokens, speed, self._mfus)
        line = status_line(
            record,
            stages=len(recipe.stages),
            left=left,
            since_save=time.monotonic() - session.last_save,
            currency=recipe.budget.currency,
        )
        session.console.status(line, now=taken.stage_step + 1 in (1, stage.steps))

    def _refuse_to_go_on(self, step: int, reason: str) -> None:
        state, recipe = self._state, self._session.recipe
        if state.guard.skips_in_row >= recipe.guard.max_skips_in_row:
            error = Diverged(
                f"{state.guard.skips_in_row} steps in a row had to be skipped",
                where=f"step {step}, stage {recipe.stages[state.progress.stage].name}",
                why=reason,
                fix="lower optim.lr or look at the data of these steps; the last checkpoint is intact",
            )
            raise self._session.world.common(error)


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
