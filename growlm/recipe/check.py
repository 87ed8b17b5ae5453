"""Rules between the fields of a recipe, checked before anything is touched.

A rule is a small function that yields the problems it sees; `RULES` is all of them. Rules about one
field (types, bounds) are in schema.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from growlm.recipe.check_layout import layout_problems
from growlm.recipe.describe import toml_value
from growlm.recipe.families import FAMILIES
from growlm.recipe.growable import refusals
from growlm.recipe.keys import Key, did_you_mean, show_key
from growlm.recipe.problem import Problem, raise_all
from growlm.recipe.schema import Recipe
from growlm.recipe.shape import ModelConfig

Problems = Iterator[Problem]


def check_recipe(recipe: Recipe) -> None:
    """Raise `RecipeError` listing every rule between fields that the recipe breaks."""
    names = {"stages": [{"name": stage.name} for stage in recipe.stages]}
    raise_all(problems(recipe), lambda key: show_key(key, names))


def problems(recipe: Recipe) -> list[Problem]:
    """Every problem of the recipe, in the order of `RULES`."""
    return [problem for rule in RULES for problem in rule(recipe)]


def _family(recipe: Recipe) -> Problems:
    family = recipe.model.family
    if family not in FAMILIES:
        close = did_you_mean(family, FAMILIES)
        fix = f'did you mean "{close}"?' if close else f"write one of: {', '.join(map(toml_value, FAMILIES))}"
        yield Problem(("model", "family"), f'no model family is named "{family}"', fix)


def _base_shape(recipe: Recipe) -> Problems:
    m = recipe.model
    reads = {"sp": 0, "mup": 2, "completep": 3}[m.parametrization]
    unread = ("mup_base_d_model", "mup_base_hidden", "mup_base_n_layers")[reads:]
    for field in unread:
        if getattr(m, field) is not None:
            what = f'parametrization "{m.parametrization}" does not read {field}'
            yield Problem(("model", field), what, "remove it, or write another parametrization")


def _pairs(recipe: Recipe) -> Problems:
    share = recipe.model.rotary_share
    sizes: list[tuple[Key, int | None]] = [(("model", "head_dim"), recipe.model.head_dim)]
    sizes += [(_key(index, "head_dim"), stage.head_dim) for index, stage in enumerate(recipe.stages)]
    for key, size in sizes:
        if size and size * share % 2 and _positions(recipe) != "learned":
            what = f"head_dim {size} has {size * share:g} coordinates to turn, not an even number"
            fix = "write an even number" if share == 1 else f"write one of which {share:g} is an even number"
            yield Problem(key, what, fix, "rotary positions turn pairs of coordinates")


def _learned_positions(recipe: Recipe) -> Problems:
    if _positions(recipe) != "learned":
        return
    rows, longest = recipe.model.max_positions, max(stage.seq_len for stage in recipe.stages)
    fix = f"write model.max_positions = {longest}"
    if rows is None:
        what = f'the family "{recipe.model.family}" learns its positions and max_positions is unset'
        yield Problem(("model", "max_positions"), what, fix)
        return
    for index, stage in enumerate(recipe.stages):
        if stage.seq_len > rows:
            what = f"{_stage(recipe, index)} has seq_len {stage.seq_len}, more than the {rows} positions"
            yield Problem(_key(index, "seq_len"), what, f"{fix}, or seq_len = {rows} or less")


def _kv_heads(recipe: Recipe) -> Problems:
    for index, stage in enumerate(recipe.stages):
        kv = stage.n_kv_heads or stage.n_heads
        if stage.n_heads % kv:
            fits = ", ".join(str(n) for n in range(1, stage.n_heads + 1) if stage.n_heads % n == 0)
            what = f"{_stage(recipe, index)} has {stage.n_heads} query heads for {kv} key/value heads"
            why = "every key/value head serves the same number of query heads"
            yield Problem(_key(index, "n_kv_heads"), what, f"write n_kv_heads as one of {fits}", why)


def _unique_names(recipe: Recipe) -> Problems:
    names = [stage.name for stage in recipe.stages]
    for index, name in enumerate(names):
        if name in names[:index]:
            what = f'stages {names.index(name)} and {index} are both named "{name}"'
            yield Problem(_key(index, "name"), what, "give every stage a name of its own")


def _can_grow(recipe: Recipe) -> Problems:
    for index, old, new in _growths(recipe):
        if new.n_heads % new.n_kv_heads:
            continue  # `_kv_heads` says so
        for r in refusals(old, new, recipe.growth_of(index)):
            yield Problem(
                _key(index, *r.field.split(".")), f"{_stage(recipe, index)}: {r.what}", r.fix, r.why
            )


def _first_growth(recipe: Recipe) -> Problems:
    if recipe.stages[0].growth is not None:
        what = f"{_stage(recipe, 0)} is the first and has a growth table"
        yield Problem(_key(0, "growth"), what, "remove it: there is nothing to grow from")


def _lengths(recipe: Recipe) -> Problems:
    shares = recipe.token_shares()
    if not shares:
        for index, stage in enumerate(recipe.stages):
            if stage.tokens is None:
                what = f"{_stage(recipe, index)} does not say how long it trains"
                fix = "write `tokens = ...`, or leave it out of every stage and write schedule.total_tokens"
                yield Problem(_key(index, "tokens"), what, fix)
    elif [stage.tokens for stage in recipe.stages] != shares:
        what = "schedule.total_tokens is set, and stages write tokens of their own"
        fix = "leave tokens out of every stage, or remove schedule.total_tokens"
        yield Problem(("schedule", "total_tokens"), what, fix, "two rules for one length")


def _ramps_end(recipe: Recipe) -> Problems:
    for index, old, new in _growths(recipe):
        growth, stage = recipe.growth_of(index), recipe.stages[index]
        for name, used in (("ramp_steps", _ramped(recipe, index, old, new)), ("rewarm_steps", old != new)):
            steps = getattr(growth, name)
            if used and 0 < stage.steps < steps:
                tokens = toml_value(steps * stage.tokens_per_step)
                what = f"{_stage(recipe, index)} has {stage.steps} steps, too few for {name} = {steps}"
                fix = f"write growth.{name} = {stage.steps} or less, or tokens = {tokens} or more"
                yield Problem(_key(index, "growth", name), what, fix, "a ramp ends inside its stage")


def _warmup_ends(recipe: Recipe) -> Problems:
    total = sum(stage.steps for stage in recipe.stages)
    if 0 < total < recipe.schedule.warmup_steps:
        what = f"the warm-up of {recipe.schedule.warmup_steps} steps is longer than the run of {total}"
        yield Problem(
            ("schedule", "warmup_steps"), what, f"write {max(total // 20, 1)}, or train more tokens"
        )


def _batches_divide(recipe: Recipe) -> Problems:
    for index, stage in enumerate(recipe.stages):
        micro = stage.micro_batch_size or stage.batch_size
        if stage.batch_size % micro:
            what = f"{_stage(recipe, index)} has batch_size {stage.batch_size}, not a multiple of {micro}"
            fits = [n for n in range(1, stage.batch_size) if stage.batch_size % n == 0]
            close = min(fits, key=lambda n: abs(n - micro), default=1)
            yield Problem(_key(index, "micro_batch_size"), what, f"write micro_batch_size = {close}")


def _contexts_nest(recipe: Recipe) -> Problems:
    smallest = min(stage.seq_len for stage in recipe.stages)
    for index, stage in enumerate(recipe.stages):
        if stage.seq_len % smallest:
            what = f"{_stage(recipe, index)} has seq_len {stage.seq_len}, not a multiple of {smallest}"
            near = round(stage.seq_len / smallest) * smallest
            why = "data is drawn in units of the shortest context, so that no token is lost or repeated"
            yield Problem(
                _key(index, "seq_len"), what, f"write {near}, or another multiple of {smallest}", why
            )


def _weights_positive(recipe: Recipe) -> Problems:
    mixtures: list[tuple[Key, dict[str, float]]] = [(("data", "mixture"), recipe.data.mixture)]
    for index, stage in enumerate(recipe.stages):
        if stage.mixture is not None:
            mixtures.append((_key(index, "mixture"), stage.mixture))
    for key, mixture in mixtures:
        if not mixture:
            yield Problem(key, "the mixture is empty", "write the weight of at least one source")
        for source, weight in mixture.items():
            if weight <= 0:
                what = f'source "{source}" has weight {weight}, not above 0'
                yield Problem((*key, source), what, "write a positive weight, or leave the source out")


def _limit_has_a_price(recipe: Recipe) -> Problems:
    if recipe.budget.max_cost is not None and recipe.budget.price_per_hour is None:
        what = "budget.max_cost is set without a price, so the run could never reach it"
        yield Problem(("budget", "max_cost"), what, "write budget.price_per_hour as well")


RULES: tuple[Callable[[Recipe], Problems], ...] = (
    _family,
    _base_shape,
    _pairs,
    _learned_positions,
    _kv_heads,
    _unique_names,
    _can_grow,
    _first_growth,
    _lengths,
    _ramps_end,
    _warmup_ends,
    _batches_divide,
    _contexts_nest,
    _weights_positive,
    _limit_has_a_price,
    layout_problems,
)


def _growths(recipe: Recipe) -> Iterator[tuple[int, ModelConfig, ModelConfig]]:
    """Each stage after the first: its index, the shape before it and its own."""
    shapes = [recipe.model_config_of(index) for index in range(len(recipe.stages))]
    for index in range(1, len(shapes)):
        yield index, shapes[index - 1], shapes[index]


def _positions(recipe: Recipe) -> str | None:
    """How the family knows positions; None for a family that there is not."""
    family = FAMILIES.get(recipe.model.family)
    return family.position if family else None


def _ramped(recipe: Recipe, index: int, old: ModelConfig, new: ModelConfig) -> bool:
    """Whether the growth into stage `index` has a mask or a vocabulary to ramp."""
    growth = recipe.growth_of(index)
    wider = any(getattr(old, a) != getattr(new, a) for a in ("d_model", "n_heads", "head_dim", "d_ff"))
    deeper = old.n_layers != new.n_layers
    return (
        (wider and growth.operator == "masked")
        or (deeper and growth.depth == "masked")
        or old.vocab_size != new.vocab_size
    )


def _stage(recipe: Recipe, index: int) -> str:
    return f'stage {index} "{recipe.stages[index].name}"'


def _key(index: int, *rest: str) -> Key:
    return ("stages", index, *rest)
