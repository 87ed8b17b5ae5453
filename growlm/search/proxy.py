"""The proxy: a narrow model that is searched in place of the target, whose best values are the target's too.

What muP transfers over is width (2203.03466), and CompleteP depth as well (2505.01618). All else that the
best values depend on stays as it is in the target: depth, head_dim, the ratios of heads and of the
feed-forward layer to the width, vocabulary, data, context, batch in tokens and the shape of the schedule.
Both resolve to one base shape, which is written out in both. No torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from growlm.errors import RecipeError
from growlm.plan.flops import flops_per_token
from growlm.plan.progress import remaining_flops, total_tokens
from growlm.recipe.check import check_recipe
from growlm.recipe.schema import Recipe, StageTable
from growlm.recipe.shape import ModelConfig

WIDEST = 256
"""Width of a proxy at most, unless one is given; FLM-101B's (2309.03852, section 3.2)."""
NARROWER = 4
"""By so many times is a proxy narrower than its target at least, where that leaves it two heads."""
SHARE = 0.1
"""Of the run's tokens that a proxy trains, unless they are given."""
FEWEST_STEPS = 1000
"""A proxy trains at least so many, but never more than the run: in a shorter one the warm-up decides."""
LOOKS = 8
"""Validations of a proxy; the token counts at which it may be pruned."""


@dataclass(frozen=True)
class Proxy:
    """What is trained in place of the target, and how it was made of it."""

    recipe: Recipe
    target: int
    """Index of the stage of the run that it stands for."""
    flops: float
    """Of one proxy from its start to its end."""
    target_flops: float
    """Of the whole run."""
    token_share: float
    """Of the run's tokens."""
    notes: tuple[str, ...]
    """What is not quite as in the target, for people."""


def make_proxy(
    recipe: Recipe,
    *,
    stage: str | None = None,
    width: int | None = None,
    layers: int | None = None,
    tokens: int | None = None,
) -> Proxy:
    """The proxy of a stage of a run (the last one if none is named).

    `width` is its d_model, `layers` its depth and `tokens` its length; what is left out is chosen. Raises
    RecipeError if there is no such stage, or no such width that keeps the shape of the heads.
    """
    index = _stage(recipe, stage)
    target = recipe.model_config_of(index)
    shape = _shrink(target, width)
    shape["n_layers"] = target.n_layers if layers is None else layers
    notes = [*_about_shape(recipe, target, shape)]
    given = with_base(recipe).model_dump(exclude_unset=True)
    given["stages"] = [_single_stage(recipe, index, shape)]
    _flatten(given, recipe, index)
    length = tokens or _tokens(recipe, recipe.stages[index])
    steps = _set_length(given, recipe, length)
    proxy = Recipe.model_validate(given)
    check_recipe(proxy)
    share = total_tokens(proxy) / total_tokens(recipe)
    if steps < recipe.schedule.warmup_steps:
        notes.append(f"{steps} steps are fewer than the run's warm-up of {recipe.schedule.warmup_steps}")
    return Proxy(
        recipe=proxy,
        target=index,
        flops=total_tokens(proxy) * flops_per_token(proxy.model_config_of(0), proxy.stages[0].seq_len),
        target_flops=remaining_flops(recipe, 0, 0),
        token_share=share,
        notes=tuple(notes),
    )


def with_base(recipe: Recipe) -> Recipe:
    """The recipe with the base shape of its run written out in full; as it is under `sp`.

    In full, because what is left out follows the first stage, and a proxy has another one than its target.
    """
    data = recipe.model_dump(exclude_unset=True)
    data["model"] |= {k: list(v) if isinstance(v, tuple) else v for k, v in recipe.base_shape().items()}
    return Recipe.model_validate(data)


def widths_of(target: ModelConfig) -> list[int]:
    """Every width, ascending, that keeps head_dim and all ratios of the target's heads to its width."""
    return [w for w, _, _, exact in _candidates(target) if exact]


def _stage(recipe: Recipe, name: str | None) -> int:
    names = [stage.name for stage in recipe.stages]
    if name is not None and name not in names:
        raise RecipeError(
            f"the recipe has no stage `{name}`", where="--stage", fix=f"one of {', '.join(names)}"
        )
    return len(names) - 1 if name is None else names.index(name)


def _candidates(target: ModelConfig) -> list[tuple[int, int, int, bool]]:
    """(width, query heads, key/value heads, whether all ratios are kept) for every number of query heads."""
    found = []
    for heads in range(1, target.n_heads + 1):
        width, rest = divmod(target.d_model * heads, target.n_heads)
        if rest:
            continue
        kv, odd = divmod(target.n_kv_heads * heads, target.n_heads)
        if odd:
            kv = max(n for n in range(1, max(1, kv) + 1) if heads % n == 0)
        found.append((width, heads, kv, not odd))
    return found


def _shrink(target: ModelConfig, width: int | None) -> dict[str, int]:
    """Width, heads and feed-forward units of the proxy. Raises RecipeError for a width that does not fit."""
    candidates = _candidates(target)
    if width is None:
        chosen = _choose(target, candidates)
    else:
        chosen = next((c for c in candidates if c[0] == width), None)
    if chosen is None:
        kept = ", ".join(str(c[0]) for c in candidates if c[3]) or str(target.d_model)
        raise RecipeError(
            f"a proxy of width {width} cannot have heads of {target.head_dim} in the target's proportion",
            where="--width",
            why=f"the target has {target.n_heads} heads over a width of {target.d_model}",
            fix=f"one of {kept}",
        )
    d_model, heads, kv, _ = chosen
    exact, rest = divmod(target.d_ff * d_model, target.d_model)
    d_ff = exact if not rest else max(8, round(target.d_ff * d_model / target.d_model / 8) * 8)
    return {"d_model": d_model, "n_heads": heads, "n_kv_heads": kv, "d_ff": d_ff}


def _choose(target: ModelConfig, candidates: list[tuple[int, int, int, bool]]) -> tuple[int, int, int, bool]:
    """The largest small width with two heads or more; ratios that are kept come before all else."""
    kept = [c for c in candidates if c[3] and c[0] < target.d_model] or candidates
    two = [c for c in kept if c[1] >= min(2, target.n_heads)] or kept
    small = [c for c in two if c[0] <= min(WIDEST, target.d_model / NARROWER)]
    return max(small) if small else min(two)


def _single_stage(recipe: Recipe, index: int, shape: dict[str, int]) -> dict[str, Any]:
    """The stage of the proxy: the target's own, without growth, of the proxy's shape."""
    stage = recipe.stages[index]
    kept = ("name", "seq_len", "batch_size", "micro_batch_size")
    values = {key: value for key in kept if (value := getattr(stage, key)) is not None}
    return values | shape


def _flatten(given: dict[str, Any], recipe: Recipe, index: int) -> None:
    """Put what the target's stage overrides where a recipe of one stage has it; leave out what is not a
    matter of the search: money, samples, several ranks, the weights that the run starts from."""
    given["name"] = f"{recipe.name}-proxy"
    given["model"] |= {
        "head_dim": recipe.head_dim_of(index),
        "vocab_size": recipe.model_config_of(index).vocab_size,
    }
    given["data"] |= {"mixture": recipe.mixture_of(index)}
    given["optim"] |= {"lr": peak_lr(recipe, index)}
    given["eval"] = {"tokens": recipe.eval.tokens, "prompts": [], "sample_tokens": 0}
    given["checkpoint"] = {"every_seconds": recipe.checkpoint.every_seconds, "keep": 2}
    given["train"] = given.get("train", {}) | {"deterministic": False}
    given["train"].pop("threads", None)
    given["budget"] = given.get("budget", {}) | {"max_cost": None}
    schedule = given.get("schedule", {})
    given["schedule"] = {k: v for k, v in schedule.items() if k not in ("total_tokens", "prop_alpha")}
    given.pop("init", None)


def peak_lr(recipe: Recipe, index: int) -> float:
    """The learning rate that a stage peaks at."""
    return recipe.stages[index].lr or recipe.optim.lr


def _tokens(recipe: Recipe, stage: StageTable) -> int:
    """A share of the run's tokens, enough steps to be a run, at most all of them."""
    whole = total_tokens(recipe)
    return min(whole, math.ceil(max(SHARE * whole, FEWEST_STEPS * stage.tokens_per_step)))


def _set_length(given: dict[str, Any], recipe: Recipe, tokens: int) -> int:
    """Fit length, warm-up and validations to so many tokens; the steps there are."""
    stage = StageTable.model_validate(given["stages"][0] | {"tokens": tokens})
    whole = sum(s.steps for s in recipe.stages)
    warmup = round(recipe.schedule.warmup_steps * stage.steps / whole)
    given["stages"][0]["tokens"] = stage.steps * stage.tokens_per_step
    given["schedule"]["warmup_steps"] = max(warmup, min(1, recipe.schedule.warmup_steps))
    given["eval"]["every_tokens"] = max(1, stage.steps // LOOKS) * stage.tokens_per_step
    return stage.steps


def _about_shape(recipe: Recipe, target: ModelConfig, shape: dict[str, int]) -> list[str]:
    """What the proxy's shape does not keep."""
    notes, kind = [], recipe.model.parametrization
    if kind == "sp" and shape["d_model"] != target.d_model:
        notes.append(
            'parametrization "sp": best values do not transfer over width; write "completep" or "mup"'
        )
    if kind != "completep" and shape["n_layers"] != target.n_layers:
        notes.append(f'parametrization "{kind}": best values do not transfer over depth')
    if shape["n_heads"] * target.n_kv_heads != shape["n_kv_heads"] * target.n_heads:
        notes.append(
            f"{shape['n_heads']} query heads on {shape['n_kv_heads']} key/value heads, "
            f"{target.n_heads} on {target.n_kv_heads} in the target: muP assumes the same ratio"
        )
    if shape["n_heads"] < 2 <= target.n_heads:
        notes.append("the proxy has a single head")
    exact = target.d_ff * shape["d_model"] / target.d_model
    if shape["d_ff"] != exact:
        notes.append(f"d_ff {shape['d_ff']} in place of {exact:g}, which is not a whole number")
    if recipe.init is not None:
        notes.append("the proxy starts from random weights, the run from `init`")
    return notes
