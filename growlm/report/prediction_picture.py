"""A prediction as a picture: the measured losses, the law through them, the target with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from growlm.plan.svg import Chart
from growlm.scaling.curve_predict import CurvePrediction
from growlm.scaling.curves import Curve
from growlm.scaling.predict import Prediction
from growlm.scaling.table import Table
from growlm.train.console import count

_SIZES = 6
_INK = "#222222"


def points_picture(table: Table, predictions: Sequence[Prediction]) -> str:
    """Loss over the variable in which the targets lie farthest out, as SVG; sizes apart by colour."""
    keys = [k for k in ("d", "n", "c", "width") if k in table and getattr(predictions[0].target, k)]
    several = "n" in keys and "d" in keys and len(np.unique(table["d"])) >= 3
    key = "d" if several else next(k for k in ("n", "c", "width", "d") if k in keys)
    names = {"d": "tokens", "n": "parameters", "c": "FLOPs", "width": "d_model"}
    chart = Chart(
        "Loss, nats per token",
        names[key],
        "loss",
        width=860,
        height=480,
        x_log=True,
        y_log=True,
        x_format=count,
    )
    if several:
        for group in np.array_split(np.unique(table["n"]), min(_SIZES, len(np.unique(table["n"])))):
            mine = table.where(np.isin(table["n"], group))
            label = count(float(group[0])) + (f" to {count(float(group[-1]))}" if len(group) > 1 else "")
            chart.points(mine[key].tolist(), mine["loss"].tolist(), label)
    else:
        chart.points(table[key].tolist(), table["loss"].tolist(), "measured")
    _law_line(chart, table, key, predictions)
    for i, p in enumerate(predictions):
        at = float(getattr(p.target, key))
        chart.line([at, at], [p.low, p.high], "90 % interval" if i == 0 else "", color=_INK)
        chart.points([at], [p.loss], "predicted" if i == 0 else "", color=_INK, radius=5.0)
    return chart.svg()


def _law_line(chart: Chart, table: Table, key: str, predictions: Sequence[Prediction]) -> None:
    """The law that counts most, for the first target: over `key`, its size held fixed where it has one."""
    variables = {"size": "n", "width": "width", "tokens": "d", "frontier": "c"}
    target = predictions[0].target
    laws = [law for law in predictions[0].laws if "B" in law.constants or variables.get(law.name) == key]
    if key != "d":
        laws = [law for law in laws if "B" not in law.constants]
    if not laws:
        return
    law = max(laws, key=lambda law: law.weight)
    last = max(float(getattr(p.target, key)) for p in predictions)
    x = np.geomspace(float(table[key].min()), max(last, float(table[key].max())), 80)
    k = law.constants
    loss = k["E"] + k["A"] * x ** -k["alpha"]
    label = f"{law.name} law"
    if "B" in k and target.n:
        loss = k["E"] + k["A"] * target.n ** -k["alpha"] + k["B"] * x ** -k["beta"]
        label += f" at {count(target.n)}"
    chart.line(x.tolist(), loss.tolist(), label, color=_INK, dashed=True, thickness=1.2)


def curves_picture(curves: Sequence[Curve], predictions: Sequence[CurvePrediction]) -> str:
    """The fitted curves and the predicted ones with their bands, as SVG."""
    chart = Chart("Loss, nats per token", "step", "loss", width=860, height=480, y_log=True, x_format=count)
    for c in curves:
        chart.line(c.at.tolist(), c.loss.tolist(), c.name, thickness=1.2)
    for p in predictions:
        low = [x - h for x, h in zip(p.path, p.half, strict=True)]
        high = [x + h for x, h in zip(p.path, p.half, strict=True)]
        chart.band(p.at, low, high, color=_INK)
        chart.line(p.at, p.path, f"{p.name}, predicted", color=_INK, dashed=True)
    return chart.svg()
