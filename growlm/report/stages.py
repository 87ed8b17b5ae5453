"""Stages and growths of a run: what each reached, what is still planned, how long that will take."""

from __future__ import annotations

from typing import Any

import numpy as np

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
            "trained": float(tokens[mine[-1]] - (tokens[mine[0] - 1] if mine[0] else 0))
            if len(mine)
            else 0.0,
            "loss": or_none(float(loss[mine[-1]])) if len(mine) else None,
            "valid": losses_of(measured[-1] if measured else {}),
            "tokens_per_second": _speed(tokens[mine], seconds[mine]),
        }
    return [found[n] for n in sorted(found)]


def planned_of(recipe: Any, begun: int) -> list[dict[str, Any]]:
    """Stages of the recipe (the content of recipe.json) that have not begun."""
    stages = _dict(recipe).get("stages")
    vocab, plan = _dict(_dict(recipe).get("model")).get("vocab_size"), []
    for stage in map(_dict, stages if isinstance(stages, list) else []):
        vocab = stage.get("vocab_size") or vocab
        heads = stage.get("n_kv_heads") or stage.get("n_heads")
        shape = _shape({**stage, "vocab_size": vocab, "n_kv_heads": heads})
        plan.append({"name": str(stage.get("name")), "shape": shape, "tokens": or_none(stage.get("tokens"))})
    return plan[begun:]


def seconds_to_go(
    stages: list[dict[str, Any]], planned: list[dict[str, Any]], steps: list[Record]
) -> float | None:
    """At the speed of now, a token of a later stage costing in proportion to its matrices' size."""
    if not stages or not steps:
        return None
    current, recent = stages[-1], steps[-200:]
    mine = [r for r in recent if r.get("stage") == current["index"]]
    speed = _speed(column(mine, "tokens"), column(mine, "train_seconds"))
    if not speed:
        return None
    here = max(0.0, (current["tokens"] or 0.0) - current["trained"])
    later = sum((p["tokens"] or 0.0) * _work(p["shape"]) / _work(current["shape"]) for p in planned)
    return (here + later) / speed


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


def _work(shape: dict[str, int]) -> float:
    """Multiplications of one token, up to a constant: blocks and the output head."""
    d = shape.get("d_model", 1)
    block = 4 * d * d + 2 * d * shape.get("d_ff", 0)
    return shape.get("n_layers", 1) * block + d * shape.get("vocab_size", 0)


def _speed(tokens: np.ndarray, seconds: np.ndarray) -> float | None:
    """Tokens per second between the first and the last point."""
    if len(tokens) < 2 or not seconds[-1] > seconds[0]:
        return None
    return or_none(float((tokens[-1] - tokens[0]) / (seconds[-1] - seconds[0])))


def _shape(value: Any) -> dict[str, int]:
    """The axes of a shape dict, and nothing else of it."""
    value = _dict(value)
    return {axis: int(x) for axis in AXES if (x := or_none(value.get(axis))) is not None}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
