"""How good predictions are on tables of published losses: python benchmarks/predict.py FOLDER [-v].

Every table is cut many times: the runs of least compute (or size, or tokens) are fitted, runs beyond the cut
are predicted, and their measured losses compared. Prints per table the share of held-out losses inside the
90 % interval, the mean relative error and the median half width of the interval.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from growlm.errors import GrowLMError
from growlm.scaling.candidates import Target
from growlm.scaling.predict import predict
from growlm.scaling.table import Table, read_table

PER_CUT = 3


def cuts(table: Table, rng: np.random.Generator) -> Iterator[tuple[str, Table, np.ndarray]]:
    """(name of the cut, what is fitted, rows to predict): beyond several quantiles of c, n and d."""
    for key in ("c", "n", "d"):
        if key not in table or len(np.unique(table[key])) < 4:
            continue
        values = table[key]
        for share in (0.4, 0.55, 0.7, 0.85):
            edge = np.quantile(np.unique(values), share)
            out = np.flatnonzero(values > edge * 1.0001)
            keep = values <= edge * 1.0001
            if keep.sum() >= 5 and len(out):
                yield f"{key}<={share}", table.where(keep), rng.permutation(out)[:PER_CUT]


def score(table: Table, rng: np.random.Generator, show: bool) -> np.ndarray:
    """(P, 3) relative error, half width, inside, of all held-out rows."""
    rows = []
    for name, fitted, out in cuts(table, rng):
        mine = []
        for i in out:
            given = {k: float(table[k][i]) for k in ("n", "d") if k in table}
            try:
                p = predict(fitted, Target(**given))
            except GrowLMError as error:
                print("   ", name, str(error).splitlines()[0])
                break
            actual = float(table["loss"][i])
            mine.append((p.loss / actual - 1, (p.high - p.low) / 2 / actual, p.low <= actual <= p.high))
        if mine and show:
            print(f"    {name:10} {len(fitted):4} rows fitted  {summary(np.array(mine))}")
        rows += mine
    return np.array(rows)


def summary(m: np.ndarray) -> str:
    """One line about (P, 3) scores."""
    error, half, inside = np.abs(m[:, 0]).mean(), np.median(m[:, 1]), m[:, 2].mean()
    bias = m[:, 0].mean()
    return (
        f"{len(m):3} held out  inside {inside:.2f}  half width {100 * half:5.2f} %  "
        f"error {100 * error:5.2f} %  bias {100 * bias:+5.2f} %"
    )


def main() -> None:
    """Score every table of the folder."""
    folder = Path(sys.argv[1])
    for path in sorted([*folder.glob("*.csv"), *folder.glob("*.jsonl")]):
        started = time.perf_counter()
        scores = score(read_table(path), np.random.default_rng(0), "-v" in sys.argv)
        print(f"{path.name:40} {summary(scores)}  {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
