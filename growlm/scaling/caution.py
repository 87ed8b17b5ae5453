"""What makes a prediction worth less than its interval says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from growlm.scaling.candidates import Target
from growlm.scaling.power_sum import nonnegative
from growlm.scaling.table import Table

FAR = 30.0
_FEW = 6
_EMBEDDING_SHARE = 0.3
_UNDECAYED = 0.3
_ONE_DEPTH = 0.03
"""Sizes that widths explain to within this share have one depth."""


def cautions(
    table: Table, target: Target, extrapolation: dict[str, float], laws: Sequence[str]
) -> tuple[str, ...]:
    """Warnings about a table and a target, for the laws that were used, most important first."""
    checks = [_far(extrapolation), _few(table), _embeddings(table), _undecayed(table)]
    if set(laws) & {"chinchilla", "chinchilla-vp", "over-training"}:
        checks.append(_ratio(table, target))
    return tuple(text for text in checks if text)


def _far(extrapolation: dict[str, float]) -> str:
    far = {k: v for k, v in extrapolation.items() if k in ("n", "c") and v > FAR}
    if not far:
        return ""
    name, ratio = max(far.items(), key=lambda item: item[1])
    what = {"n": "size", "c": "compute"}[name]
    return f"the target has {ratio:.0f} times the {what} of the largest run: train one within 10 to 30 times"


def _few(table: Table) -> str:
    if len(table) < _FEW:
        return f"{len(table)} points carry a law with 3 constants badly: give {_FEW} or more"
    for name in ("n", "width"):
        if name in table:
            sizes = len(np.unique(table[name]))
            return "all runs have one size: nothing is known about other sizes" if sizes == 1 else ""
    return ""


def _embeddings(table: Table) -> str:
    """Counts with many embedding parameters in them bend the law at its small end (2411.12925)."""
    if "n" not in table:
        return ""
    if "n_total" in table and not np.array_equal(table["n"], table["n_total"]):
        return ""
    if "width" not in table:
        return ""
    share = float((1 - np.minimum(_in_blocks(table) / table["n"], 1.0)).max())
    if share <= _EMBEDDING_SHARE:
        return ""
    return (
        f"up to {100 * share:.0f} % of the counted parameters are outside the blocks: "
        "a column without embeddings predicts better"
    )


def _in_blocks(table: Table) -> np.ndarray:
    """(R,) parameters of the blocks: 12 L d_model^2; without depths the part of N that grows with the square
    of the width, the rest being embeddings, which grow with the width itself."""
    n, width = table["n"], table["width"]
    if "depth" in table:
        return 12 * table["depth"] * width**2
    basis = np.column_stack([width, width**2]) / n[:, None]
    found, cost = nonnegative(basis[None], np.ones(len(n)), np.ones(len(n)))
    one_depth = len(np.unique(width)) > 2 and float(cost[0]) / len(n) < _ONE_DEPTH**2
    return found[0, 1] * width**2 if one_depth else n


def _undecayed(table: Table) -> str:
    """A run that ends at a high rate is 1 to 5 % above what a decay would have given."""
    if "lr_end" in table and "lr_peak" in table:
        high = int((table["lr_end"] > _UNDECAYED * table["lr_peak"]).sum())
        if high:
            return (
                f"{high} runs ended above {100 * _UNDECAYED:.0f} % of their peak learning rate: not decayed"
            )
        return ""
    runs, counts = np.unique(table.runs, return_counts=True)
    if "d" in table and len(runs) > 1 and counts.max() > 2:
        return (
            "several rows belong to one run: unless each was decayed, they are losses on the way, not final"
        )
    return ""


def _ratio(table: Table, target: Target) -> str:
    """Outside the sampled tokens per parameter the law of N and D is a guess (2403.08540)."""
    if "n" not in table or "d" not in table or not target.n or not target.d:
        return ""
    sampled, asked = table["d"] / table["n"], target.d / target.n
    low, high = float(sampled.min()), float(sampled.max())
    if low * 0.8 <= asked <= high * 1.25:
        return ""
    return f"the target has {asked:.3g} tokens per parameter, the runs {low:.3g} to {high:.3g}"
