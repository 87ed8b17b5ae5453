"""Rows that no law can explain: a run that failed, a typing error, a digitised point off its place."""

from __future__ import annotations

import numpy as np

from growlm.scaling.power_sum import fit_powers
from growlm.scaling.table import Table

_SIGMAS, _SHARE = 10.0, 0.06
"""A loss is left out when it is off by this many robust standard deviations and by this share."""
_LEAST = 15
_TRIM = 0.9
_SHOWN = 5


def screened(table: Table) -> Table:
    """The table without gross outliers, which are named in its notes.

    The law is fitted to the nine tenths of the rows that it fits best, again and again, so that outliers
    cannot pull it to themselves (least trimmed squares, Rousseeuw 1984).
    """
    names = [name for name in ("n", "d") if name in table and len(np.unique(table[name])) >= 3]
    if len(table) < _LEAST or not names:
        return table
    x, loss = np.log(np.column_stack([table[name] for name in names])), table["loss"]
    off = np.zeros(len(loss))
    for _ in range(4):
        keep = off <= np.quantile(off, _TRIM)
        fit = fit_powers(x[keep], loss[keep], range(len(names)), tolerance=1e-6)
        off = np.abs(fit.log_loss(x)[0] - np.log(loss))
    bad = off > max(_SIGMAS * 1.4826 * float(np.median(off)), _SHARE)
    if not bad.any() or bad.mean() > 1 - _TRIM:
        return table
    shown = ", ".join(f"{v:.4g}" for v in loss[bad][:_SHOWN]) + (", ..." if bad.sum() > _SHOWN else "")
    note = f"{int(bad.sum())} rows are left out, their losses ({shown}) are far from what the others say"
    return Table({k: v[~bad] for k, v in table.columns.items()}, table.runs[~bad], (*table.notes, note))
