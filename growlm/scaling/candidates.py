"""Which laws a table can carry for a target, and the rows and variables each of them is fitted to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from growlm.errors import RecipeError
from growlm.scaling.frontier import compute_optima
from growlm.scaling.power_sum import PUBLISHED_DELTA, Fit, fit_powers
from growlm.scaling.table import FLOPS_PER_PARAMETER_TOKEN, Table

EQUAL = 0.05
"""Two token counts are equal within this difference of their logarithms."""
_LEAST_RUNS = 4
"""Fewer names than this are those of tables or series, not of runs."""
NAMES = ("size", "width", "tokens", "chinchilla", "chinchilla-vp", "over-training", "frontier")


@dataclass(frozen=True)
class Target:
    """What to predict the loss of; None where it is not given. n: parameters as the table counts them."""

    n: float | None = None
    d: float | None = None
    c: float | None = None
    width: float | None = None

    def completed(self) -> Target:
        """With the third of n, d and c = 6 n d filled in from the other two."""
        n, d, c, k = self.n, self.d, self.c, FLOPS_PER_PARAMETER_TOKEN
        if n and d:
            return Target(n, d, c or k * n * d, self.width)
        if n and c:
            return Target(n, c / k / n, c, self.width)
        if d and c:
            return Target(c / k / d, d, c, self.width)
        return self


@dataclass(frozen=True)
class Candidate:
    """A law ready to be fitted: logarithms x (M, J) of its variables at the rows, losses (M,), the target.

    groups: (M,) what is drawn together (a run's checkpoints, the seeds of a size). sizes: (M,) what the
    jackknife takes the smallest of. delta, prior: see `fit_powers`.
    """

    name: str
    variables: tuple[str, ...]
    of_term: tuple[int, ...]
    x: np.ndarray
    loss: np.ndarray
    groups: np.ndarray
    sizes: np.ndarray
    target: np.ndarray
    delta: float | None = None
    prior: bool = True

    @property
    def parameters(self) -> int:
        """Free constants of the law."""
        return 1 + len(self.of_term) + max(self.of_term) + 1

    def fit(self, keep: np.ndarray | None = None) -> Fit:
        """The law fitted to the rows `keep` (mask), by default all."""
        rows = np.ones(len(self.loss), bool) if keep is None else keep
        return fit_powers(self.x[rows], self.loss[rows], self.of_term, delta=self.delta, prior=self.prior)

    def formula(self, fit: Fit) -> str:
        """The fitted law as a person writes it."""
        terms = zip(fit.scales, self.variables, fit.exponents, strict=True)
        return f"{fit.floor:.4f}" + "".join(f" + {a:.4g} {v}^-{e:.4f}" for a, v, e in terms)


def candidates(table: Table, target: Target, law: str | None = None) -> list[Candidate]:
    """The laws that fit table and target, the most general first.

    Raises RecipeError when there is none, or not the one that was asked for, with what is missing.
    """
    target = target.completed()
    makers: dict[str, Callable[[], Candidate | str]] = {
        "chinchilla": lambda: _of_n_and_d(table, target, "chinchilla", (0, 1), PUBLISHED_DELTA),
        "chinchilla-vp": lambda: _of_n_and_d(table, target, "chinchilla-vp", (0, 1), None),
        "over-training": lambda: _of_n_and_d(table, target, "over-training", (0, 0), None),
        "size": lambda: _at_equal_tokens(table, target),
        "width": lambda: _of_one(table, "width", "width", target.width),
        "tokens": lambda: _at_equal_size(table, target),
        "frontier": lambda: _frontier(table, target),
    }
    if law is not None and law not in makers:
        raise RecipeError(f"there is no law {law!r}", where="--law", fix=f"one of {', '.join(makers)}")
    made = {name: make() for name, make in makers.items() if law in (None, name)}
    found = [c for c in made.values() if isinstance(c, Candidate)]
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in made.items())
        raise RecipeError("no law fits this table and this target", where="--target", why=reasons)
    if any(c.name not in ("width", "frontier") for c in found):
        found = [c for c in found if c.name != "width" or law]
    return found


def _of_n_and_d(
    table: Table, target: Target, name: str, of_term: tuple[int, ...], delta: float | None
) -> Candidate | str:
    if "n" not in table or "d" not in table:
        return "needs columns of parameters and tokens (or FLOPs)"
    if target.n is None or target.d is None:
        return "needs a target of parameters and tokens, e.g. n=1e9,d=2e10"
    x = np.log(np.column_stack([table["n"], table["d"]]))
    parameters = 3 + len(set(of_term))
    if len(x) < parameters + 1 or min(_distinct(x[:, 0]), _distinct(x[:, 1])) < 3:
        return f"needs {parameters + 1} points, 3 sizes and 3 token counts or more"
    if np.linalg.matrix_rank(x - x.mean(axis=0), tol=0.05 * np.sqrt(len(x))) < 2:
        return "parameters and tokens grow in proportion, so their effects cannot be told apart"
    at = np.log([[target.n, target.d]])
    return Candidate(
        name, ("N", "D"), of_term, x, table["loss"], _groups(table, x), table["n"], at, delta, delta is None
    )


def _of_one(table: Table, name: str, column: str, value: float | None) -> Candidate | str:
    if column not in table:
        return f"needs a column {column}"
    if value is None:
        return f"needs a target {column}=..."
    x = np.log(table[column])[:, None]
    if _distinct(x[:, 0]) < 4:
        return f"needs 4 different values of {column}"
    variable = {"n": "N", "d": "D", "c": "C"}.get(column, column)
    return Candidate(
        name, (variable,), (0,), x, table["loss"], _groups(table, x), table[column], np.log([[value]])
    )


def _at_equal_tokens(table: Table, target: Target) -> Candidate | str:
    """a N^b + c over the rows that were trained as long as the target."""
    for column, value in (("d", target.d), ("step", None)):
        if column in table and _distinct(np.log(np.maximum(table[column], 1e-9))) > 1:
            if value is None:
                return "the rows differ in tokens or steps: give the target's, e.g. n=1e9,d=2e10"
            table = table.where(np.abs(np.log(table[column] / value)) <= EQUAL)
            break
    return _of_one(table, "size", "n", target.n)


def _at_equal_size(table: Table, target: Target) -> Candidate | str:
    """A law of tokens, for a table of one size."""
    if "n" in table and (_distinct(np.log(table["n"])) > 1):
        return "the rows differ in size"
    return _of_one(table, "tokens", "d", target.d)


def _frontier(table: Table, target: Target) -> Candidate | str:
    """E + a C^-g over the best loss at each compute."""
    if "c" not in table:
        return "needs a column of FLOPs"
    if target.c is None:
        return "needs a target of FLOPs"
    optima = compute_optima(table)
    if optima is None:
        return "needs several sizes at each of 5 or more levels of compute"
    if target.n is not None and "n" in table and not optima.is_near(target.n, target.c):
        return "the target is far from compute-optimal"
    at = np.log([[target.c]])
    groups = np.arange(len(optima.c))
    return Candidate("frontier", ("C",), (0,), np.log(optima.c)[:, None], optima.loss, groups, optima.c, at)


def _distinct(logs: np.ndarray) -> int:
    """How many values differ by more than `EQUAL`."""
    return 1 + int((np.diff(np.sort(logs)) > EQUAL).sum()) if len(logs) else 0


def _groups(table: Table, x: np.ndarray) -> np.ndarray:
    """(M,) rows that are no independent measurements of the law: checkpoints of one run, and runs of equal
    size and length (seeds), whose mean is less noisy but which share what the law is off by there."""
    runs = np.unique(table.runs, return_inverse=True)[1]
    if runs.max() + 1 < _LEAST_RUNS:
        runs = np.arange(len(table))
    places = [tuple(sorted(map(tuple, x[runs == run].round(6)))) for run in range(runs.max() + 1)]
    number = {place: i for i, place in enumerate(dict.fromkeys(places))}
    return np.array([number[places[run]] for run in runs])
