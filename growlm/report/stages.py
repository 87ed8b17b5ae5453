"""Stages and growths of a run: what each reached, what is still planned, how long that will take."""

from __future__ import annotations

from typing import Any

import numpy as np

from growlm.plan.progress import planned_mfus, remaining_seconds
from growlm.recipe.schema import Recipe
from growlm.report.history import AXES, growth_changes
from growlm.report.series import Record, applied_loss, column, losses_of, or_none, smooth


def stages_of(stages: list[Record], steps: list[Record], valid: list[Record]) -> list[dict[str, Any]]:
    """One entry per stage begun, with what it reached. Of a stage recorded twice the first counts."""
    index, loss = column(steps, "stage"), smooth(applied_loss(steps))
    tokens, seconds = column(steps, "tokens"), column(steps, "train_seconds")
    found: dict[int, dict[str, Any]] = {}
    for r in stages:
        number_of = int(or_none(r.get("stage")) or 0)
        if number_of in found:
            continue
        mine = np.flatnonzero(index == number_of)
        measured = [v for v in valid if v.get("stage") == number_of]
        found[number_of] = {
            "index": number_of,
            "name": str(r.get("name")),
            "shape": _shape(r.get("shape")),
            **{k: or_none(r.get(k)) for k in ("step", "parameters", "tokens", "seq_len", "batch_size")},
            "trained": or_none(float(tokens[mine[-1]] - (tokens[mine[0] - 1] if mine[0] else 0))) or 0.0
            if len(mine)
            else 0.0,
            "loss": or_none(float(loss[mine[-1]])) if len(mine) else None,
            "valid": losses_of(measured[-1] if measured else {}),
            "tokens_per_second": _rate(tokens[mine], seconds[mine]),
        }
    return [found[n] for n in sorted(found)]


def planned_of(recipe: Recipe | None, begun: int) -> list[dict[str, Any]]:
    """Stages of the recipe that have not begun."""
    if recipe is None:
        return []
    return [
        {
            "name": stage.name,
            "shape": _shape(recipe.model_config_of(begun + i).to_dict()),
            "tokens": stage.steps * stage.tokens_per_step,
        }
        for i, stage in enumerate(recipe.stages[begun:])
    ]


def seconds_to_go(
    recipe: Recipe | None, start: Record, stages: list[dict[str, Any]], steps: list[Record]
) -> float | None:
    """The model FLOPs that are left, at the FLOP/s of the last steps, in later stages faster or slower as
    planned; None while that is not known."""
    recent = [r for r in steps[-200:] if stages and r.get("stage") == stages[-1]["index"]]
    speed = _rate(column(recent, "flops"), column(recent, "train_seconds"))
    if recipe is None or speed is None:
        return None
    mfus = planned_mfus(recipe, str(start.get("device")), int(or_none(start.get("ranks")) or 1))
    return remaining_seconds(recipe, stages[-1]["index"], stages[-1]["trained"], speed, mfus)


def growths_of(growths: list[Record]) -> list[dict[str, Any]]:
    """One entry per growth. A growth repeated by a resume was recorded twice: the last counts."""
    latest = {r.get("stage"): r for r in growths}
    return [
        {
            "step": r["step"],
            "stage": or_none(r.get("stage")),
            "changes": growth_changes(_shape(r.get("from")), _shape(r.get("to"))),
            "operator": str(r.get("operator")),
            "depth": str(r.get("depth")),
            "certificate": _certificate(_dict(r.get("certificate"))),
        }
        for r in latest.values()
    ]


def _certificate(certificate: dict[str, Any]) -> dict[str, Any]:
    """What a page shows of a growth certificate. `new_layers`: without a source, or second copies of one."""
    layers, seen, fresh = certificate.get("layers"), set(), []
    for layer in layers if isinstance(layers, list) else []:
        source = or_none(_dict(layer).get("from"))
        if source is None or source in seen:
            fresh.append(or_none(_dict(layer).get("layer")))
        seen.add(source)
    gradient, symmetry = _dict(certificate.get("gradient")), _dict(certificate.get("symmetry"))
    return {
        "exact": certificate.get("exact") is True,
        "precision": str(certificate.get("precision")),
        **{k: or_none(certificate.get(k)) for k in ("tolerance", "max_dlogit", "dloss", "tokens")},
        "gradient_error": or_none(gradient.get("max_error")),
        "symmetry": {
            str(axis): {k: or_none(_dict(ranks).get(k)) for k in ("units", "distinct")}
            for axis, ranks in symmetry.items()
        },
        "new_layers": fresh if layers else None,
    }


def _rate(amounts: np.ndarray, seconds: np.ndarray) -> float | None:
    """Amount per second between the first and the last point."""
    if len(amounts) < 2 or not seconds[-1] > seconds[0]:
        return None
    return or_none(float((amounts[-1] - amounts[0]) / (seconds[-1] - seconds[0])))


def _shape(value: Any) -> dict[str, int]:
    """The axes of a shape dict, and nothing else of it."""
    value = _dict(value)
    return {axis: int(x) for axis in AXES if (x := or_none(value.get(axis))) is not None}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
