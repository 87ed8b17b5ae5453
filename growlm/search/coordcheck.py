"""The coordinate check (2203.03466, appendix D.1): no layer's output may depend on the size of the model.

Models of several widths, and of several depths, take a few large steps on the same tokens. Under a right
parametrization every coordinate of every layer is of one size in all of them, as it was at first and as it
has been changed; under a wrong one it grows or vanishes as a power of the size. The check fits that power.

Logits are let off before the first update: those of a random readout are a sum of `width` random terms over
the width, and fall as 1/sqrt(width); only a readout of zeros would not. They may not grow. Scores of
attention fall likewise where head_dim grows with the width, and are let off too.

What passes here may still be wrong in what few steps do not show: weight decay, and AdamW's epsilon.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from growlm.errors import RecipeError
from growlm.recipe.schema import Recipe
from growlm.recipe.shape import ModelConfig
from growlm.search.coordinates import KINDS, Steps, coordinates

LIMIT = 0.1
"""The largest power of the size that a coordinate may follow, up or down."""

Axis = Literal["d_model", "n_layers"]
Parametrization = Literal["sp", "mup", "completep"]

PROMISED: dict[Parametrization, tuple[Axis, ...]] = {
    "sp": ("d_model", "n_layers"),
    "mup": ("d_model",),
    "completep": ("d_model", "n_layers"),
}
"""What each parametrization is judged by. muP has no rule for depth; `sp` has none at all, and is judged by
both to show it."""

NARROWEST = 64
WIDEST = {"adamw": 1024, "muon": 512}
"""Muon makes matrices orthogonal, at a cost that is the cube of the width."""
MOST_WIDTHS, FEWEST_WIDTHS = 5, 3
SEEDS = {"adamw": 8, "muon": 4}
DEPTHS = (2, 4, 8, 16, 32)
WRITERS: dict[Axis, float] = {"d_model": 1.0, "n_layers": 0.25}
"""What residual writers start at, as a share of their initial values (see `coordinates`)."""
VOCABULARY = 256
"""Rows of the embedding at most: no parametrization depends on them."""

DEFAULT = {
    "name": "coordcheck",
    "model": {"family": "llama", "head_dim": 16, "vocab_size": VOCABULARY, "tied": False},
    "data": {"path": "", "mixture": {"random": 1}},
    "optim": {"lr": 1e-3},
    "stages": [
        {
            "name": "check", "d_model": 64, "n_heads": 4, "n_kv_heads": 2, "d_ff": 160, "n_layers": 2,
            "tokens": 1, "seq_len": 1, "batch_size": 1,
        }
    ],
}  # fmt: skip
"""What is checked where no recipe is given; no data are read in any case."""


@dataclass(frozen=True)
class Sweep:
    """One axis, `logs` the logarithms of (2, steps, kinds, sizes): mean |x|, and mean |change of x|.

    Means over seeds, before the logarithm: of few heads it is lower than of many. `judged`: the
    parametrization promises that none depends on this axis.
    """

    axis: Axis
    sizes: tuple[int, ...]
    judged: bool
    logs: NDArray[np.float64]

    @property
    def slopes(self) -> NDArray[np.float64]:
        """The power of the size that each coordinate follows, (2, steps, kinds), by least squares."""
        x = np.log(self.sizes)
        x -= x.mean()
        with np.errstate(invalid="ignore"):  # what is 0 follows no power
            return self.logs @ x / (x @ x)

    @property
    def broken(self) -> NDArray[np.bool_]:
        """Which of them are beyond the limit, (2, steps, kinds); what is not a number is."""
        slopes = self.slopes
        broken = ~(np.abs(slopes) <= LIMIT)
        for kind in ("logits", "scores"):
            broken[0, 0, KINDS.index(kind)] &= slopes[0, 0, KINDS.index(kind)] > 0
        broken[1, 0] = False  # nothing has changed yet
        return broken

    @property
    def passed(self) -> bool:
        """Whether no coordinate follows the size."""
        return not self.broken.any()


@dataclass(frozen=True)
class Check:
    """A coordinate check that was made; `lr` is that of the smallest model."""

    parametrization: Parametrization
    optimizer: str
    lr: float
    seeds: int
    sweeps: tuple[Sweep, ...]

    @property
    def passed(self) -> bool:
        """Whether the parametrization keeps what it promises."""
        return all(sweep.passed for sweep in self.sweeps if sweep.judged)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; values by kind are in order of step, then size."""
        return {
            "passed": self.passed,
            "parametrization": self.parametrization,
            "optimizer": self.optimizer,
            "lr": self.lr,
            "seeds": self.seeds,
            "limit": LIMIT,
            "sweeps": [_as_dict(sweep) for sweep in self.sweeps],
        }


def coordinate_check(
    recipe: Recipe | None = None,
    parametrization: Parametrization | None = None,
    optimizer: Literal["adamw", "muon"] | None = None,
    *,
    widths: Sequence[int] | None = None,
    depths: Sequence[int] | None = None,
    lr: float | None = None,
    steps: int = 5,
    seeds: int | None = None,
) -> Check:
    """Check the model and the optimizer of a recipe, or of a small Llama, at other widths and depths.

    The first stage is scaled in all its ratios. The base shape is the narrowest and shallowest model of the
    check, as rules are about ratios to a base, whatever it is. Raises RecipeError for sizes that cannot be.
    """
    recipe = recipe or Recipe.model_validate(DEFAULT)
    kind = parametrization or recipe.model.parametrization
    optim = recipe.optim.model_copy(update={"name": optimizer or recipe.optim.name})
    wide = sorted(set(widths or _widths(_unit(recipe)["d_model"], WIDEST[optim.name])))
    deep = sorted(set(depths or DEPTHS))
    for option, given in (("--widths", wide), ("--depths", deep)):
        if len(given) < 2:
            raise RecipeError(
                "one size has no slope", where=option, fix=f"{option} {given[0]},{2 * given[0]}"
            )
    how = Steps(steps, lr or _large_rate(recipe.model.init_std, wide[0], optim.name), optim)
    seeds = seeds or SEEDS[optim.name]
    scale = _Scale(recipe, kind, wide[0], deep[0])
    sweeps = (
        _sweep("d_model", wide, kind, [scale.config(width, deep[0]) for width in wide], seeds, how),
        _sweep("n_layers", deep, kind, [scale.config(wide[0], depth) for depth in deep], seeds, how),
    )
    return Check(kind, optim.name, how.lr, seeds, sweeps)


def _large_rate(std: float, width: int, optimizer: str) -> float:
    """A learning rate for models of a `width`.

    AdamW moves every weight by it, all in the direction of the input: at this rate one update changes what
    a matrix makes of its input by about a quarter. Muon spreads its update over all directions,
    and embedding and head are the limit.
    """
    return std / 4 if optimizer == "muon" else std / math.sqrt(width) / 4


def _sweep(
    axis: Axis, sizes: list[int], kind: Parametrization, configs: list[ModelConfig], seeds: int, how: Steps
) -> Sweep:
    found = [[coordinates(config, seed, how, WRITERS[axis]) for seed in range(seeds)] for config in configs]
    with np.errstate(divide="ignore"):  # before the first update nothing has changed
        logs = np.log(np.mean(found, axis=1))  # sizes, 2, steps, kinds
    return Sweep(axis, tuple(sizes), axis in PROMISED[kind], np.moveaxis(logs, 0, -1))


@dataclass(frozen=True)
class _Scale:
    """A recipe whose first stage is scaled, and the base shape of all that it is scaled to."""

    recipe: Recipe
    parametrization: Parametrization
    d_model: int
    n_layers: int

    def config(self, d_model: int, n_layers: int) -> ModelConfig:
        """The first stage's model at another width and depth. Raises RecipeError."""
        unit, model = _unit(self.recipe), self.recipe.model
        times, rest = divmod(d_model, unit["d_model"])
        if rest or not times:
            raise RecipeError(
                f"a width of {d_model} cannot have the ratios of stage {self.recipe.stages[0].name!r}",
                where="--widths",
                fix=f"multiples of {unit['d_model']}",
            )
        scaled = {axis: size * times for axis, size in unit.items()} | {"n_layers": n_layers}
        stage = self.recipe.stages[0].model_copy(update=scaled | {"vocab_size": None})
        vocabulary = min(VOCABULARY, model.vocab_size)
        changes = {"parametrization": self.parametrization, "vocab_size": vocabulary}
        bases = {"mup_base_d_model": self.d_model, "mup_base_n_layers": self.n_layers}
        table = model.model_copy(update=changes | bases)
        return self.recipe.model_copy(update={"model": table, "stages": [stage]}).model_config_of(0)


def _unit(recipe: Recipe) -> dict[str, int]:
    """The smallest shape with all ratios of the first stage."""
    stage = recipe.stages[0]
    sizes = {
        "d_model": stage.d_model,
        "n_heads": stage.n_heads,
        "n_kv_heads": stage.n_kv_heads or stage.n_heads,
        "d_ff": stage.d_ff,
    }
    common = math.gcd(*sizes.values())
    return {axis: size // common for axis, size in sizes.items()}


def _widths(unit: int, widest: int) -> tuple[int, ...]:
    """Doublings of a width: as many as are neither narrow nor wide, but some in any case."""
    first = unit * 2 ** max(0, math.ceil(math.log2(NARROWEST / unit)))
    widths = [first * 2**k for k in range(MOST_WIDTHS)]
    return tuple(w for k, w in enumerate(widths) if k < FEWEST_WIDTHS or w <= widest)


def _as_dict(sweep: Sweep) -> dict[str, Any]:
    values, slopes, broken = np.exp(sweep.logs), sweep.slopes, sweep.broken
    kinds = {
        kind: {
            "mean_abs": _numbers(values[0, :, k]),
            "mean_abs_change": _numbers(values[1, :, k]),
            "slopes": _numbers(slopes[0, :, k]),
            "slopes_of_change": _numbers(slopes[1, :, k]),
            "passed": not broken[:, :, k].any(),
        }
        for k, kind in enumerate(KINDS)
    }
    return {
        "axis": sweep.axis,
        "sizes": list(sweep.sizes),
        "judged": sweep.judged,
        "passed": sweep.passed,
        "kinds": kinds,
    }


def _numbers(values: NDArray[np.float64]) -> list[Any]:
    """A list, or one of lists, with None for what is not a number: JSON has none of those."""
    if values.ndim > 1:
        return [_numbers(row) for row in values]
    return [float(value) if math.isfinite(value) else None for value in values]
