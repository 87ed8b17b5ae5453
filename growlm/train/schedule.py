"""The learning rate: a pure function of the recipe and the step. No state, no torch."""

from __future__ import annotations

import math

from growlm.recipe.schema import GrowthTable, Recipe, ScheduleTable


def learning_rate(recipe: Recipe, stage: int, stage_step: int) -> float:
    """Learning rate of step `stage_step` (0-based) of a stage.

    The shape runs from the run's start, or from the last stage that rewinds, to the next rewind or the
    end; its peak is the stage's own. A stage that re-warms multiplies it by a warm-up at its start.
    """
    starts = [i for i in range(len(recipe.stages)) if i == 0 or recipe.stages[i].lr_policy == "rewind"]
    first = max(i for i in starts if i <= stage)
    after = min((i for i in starts if i > stage), default=len(recipe.stages))
    done = sum(s.steps for s in recipe.stages[first:stage]) + stage_step
    total = sum(s.steps for s in recipe.stages[first:after])
    peak = recipe.stages[stage].lr or recipe.optim.lr
    lr = peak * shape(recipe.schedule, done, total)
    if stage > 0 and recipe.stages[stage].lr_policy == "rewarm":
        lr *= _warmup(recipe.schedule, stage_step)
    return lr


def shape(schedule: ScheduleTable, step: int, total: int) -> float:
    """Share of the peak at `step` (0-based) of `total`: warm-up, then WSD (2404.06395), cosine or linear."""
    if step < schedule.warmup_steps:
        return _warmup(schedule, step)
    floor = schedule.min_lr_ratio
    begin = schedule.warmup_steps
    if schedule.kind == "wsd":
        begin = max(begin, round(total * (1 - schedule.decay_share)))
    progress = min(1.0, max(0, step + 1 - begin) / max(1, total - begin))
    if schedule.kind == "cosine":
        progress = (1 - math.cos(math.pi * progress)) / 2
    return 1 - (1 - floor) * progress


def rewarm(growth: GrowthTable, stage_step: int, steps: int) -> float:
    """Factor on the learning rate of what the growth into a stage of `steps` added, at `stage_step`.

    Peak 1: from 0 up to 1 in `rewarm_steps`. A higher peak: from 1 up to it, then by a cosine back to 1 at
    the stage's end (SPARKLING, 2602.02472).
    """
    warm, peak = growth.rewarm_steps, growth.rewarm_peak
    if stage_step < warm:
        rise = (stage_step + 1) / warm
        return rise if peak == 1 else 1 + (peak - 1) * rise
    fall = (stage_step + 1 - warm) / (steps - warm)
    return 1 + (peak - 1) * (1 + math.cos(math.pi * fall)) / 2


def _warmup(schedule: ScheduleTable, step: int) -> float:
    return min(1.0, (step + 1) / schedule.warmup_steps) if schedule.warmup_steps else 1.0
