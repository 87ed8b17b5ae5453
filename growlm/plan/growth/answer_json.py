"""A search's answer as plain JSON types: every number that the terminal shows. No torch."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from growlm.plan.growth.answer import Answer, loss_interval
from growlm.plan.growth.pilot_plan import Pilot
from growlm.plan.growth.request import Request
from growlm.plan.growth.search import Schedule


def answer_json(answer: Answer) -> dict[str, Any]:
    """Everything; what is not finite is null."""
    asked, said = answer.asked, answer.verdict
    found = {
        "budget": {
            "gpus": asked.setting.n_gpus,
            "gpu": asked.setting.gpu.name,
            "days": asked.goal.seconds / 86400,
            "gpu_hours": asked.setting.n_gpus * asked.goal.seconds / 3600,
            "money": asked.money(asked.goal.seconds),
            "limit": asked.limit,
        },
        "verdict": {
            "kind": said.kind,
            "words": said.words,
            "gain": list(said.gain),
            "gain_of_hopeful": list(said.hopeful),
            "best_single_size": said.best.params,
        },
        "schedule": schedule_json(answer.schedule, asked),
        "loss_interval": list(loss_interval(answer.schedule)),
        "speed_ups": {
            law: {"pessimistic": asdict(low), "optimistic": asdict(high)}
            for law, (low, high) in answer.speed_ups.items()
        },
        "static": {
            "best_that_is_wanted": schedule_json(answer.found.static, asked),
            "last_size": schedule_json(answer.found.target, asked),
            "best_of_any_size": schedule_json(answer.free, asked),
        },
        "hopeful": schedule_json(answer.found.hopeful, asked),
        "budgets": [
            {
                "budget": point.budget,
                "static": schedule_json(point.static, asked),
                "schedule": schedule_json(point.schedule, asked),
            }
            for point in answer.points
        ],
        "sensitivity": [asdict(bar) for bar in answer.bars],
        "pilot": pilot_json(answer.pilot, asked) if answer.pilot else None,
        "assumptions": {
            "laws": {name: asdict(law) for name, law in asked.belief.laws.items()},
            "rho": list(asked.belief.rho),
            "goodput": asked.setting.goodput,
            "max_growth": asked.goal.max_growth,
            "last_share": asked.goal.last_share,
        },
        "warnings": answer.warnings,
    }
    return _finite(found)


def schedule_json(schedule: Schedule, asked: Request) -> dict[str, Any]:
    """A schedule: its stages, what it costs, and its losses by law."""
    stages = []
    for rung, tokens in zip(schedule.rungs, schedule.tokens, strict=True):
        seconds = tokens / rung.tokens_per_second
        axes = ("d_model", "n_heads", "n_kv_heads", "d_ff", "n_layers")
        stages.append(
            {
                "parameters": rung.params,
                "shape": {axis: getattr(rung.config, axis) for axis in axes},
                "tokens": tokens,
                "layout": asdict(rung.layout),
                "memory_bytes": rung.memory,
                "mfu": rung.mfu,
                "tokens_per_second": rung.tokens_per_second,
                "flops": tokens * rung.flops_per_token,
                "days": seconds / 86400,
                "money": asked.money(seconds),
            }
        )
    return {
        "stages": stages,
        "tokens": sum(schedule.tokens),
        "days": schedule.seconds / 86400,
        "money": asked.money(schedule.seconds),
        "loss": {
            law: {"pessimistic": low, "optimistic": high} for law, (low, high) in schedule.losses.items()
        },
    }


def pilot_json(pilot: Pilot, asked: Request) -> dict[str, Any]:
    """The pilot's two runs, its cost, and the number that decides."""
    return {
        "grown": schedule_json(pilot.grown, asked),
        "alone": schedule_json(pilot.alone, asked),
        "days": pilot.seconds / 86400,
        "money": asked.money(pilot.seconds),
        "grow_if_rho_at_least": pilot.needs,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
