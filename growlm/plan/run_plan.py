"""A recipe on a number of GPUs: layout, memory, time and money of every stage, and of the whole. No torch."""

from __future__ import annotations

from dataclasses import dataclass, fields

from growlm.errors import RecipeError
from growlm.model.parameters import n_parameters
from growlm.plan.activations import Work
from growlm.plan.auto import choose_layout, ranks_of
from growlm.plan.cost import GOODPUT, Cost, cost_of
from growlm.plan.flops import causal_flops_per_token, executed_flops_per_token, flops_per_token
from growlm.plan.footprint import Footprint, most_loaded
from growlm.plan.layout import Layout
from growlm.plan.machines import Gpu, Machines, parse_gpus
from growlm.plan.paper_flops import Shape
from growlm.plan.ranking import Ranked, best_layout
from growlm.plan.step_time import StepTime, step_time
from growlm.recipe.schema import Recipe
from growlm.recipe.shape import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and how well a plan runs. `price_per_hour` is of one GPU, `grid` a name; None: the table's.

    `mfu`: one for all stages, or one for each; empty where it is to be predicted.
    """

    gpu: Gpu
    n_gpus: int
    mfu: tuple[float, ...] = ()
    goodput: float = GOODPUT
    price_per_hour: float | None = None
    grid: str | None = None


@dataclass(frozen=True, kw_only=True)
class FlopCounts:
    """FLOPs of a stage or run by every convention: of the model (what MFU counts), with attention over half
    of the square, with what is made again; and by the closed form of papers, c = 84 and c = 12 of it."""

    model: float = 0.0
    causal: float = 0.0
    executed: float = 0.0
    paper: float = 0.0
    paper_range: float = 0.0

    def __add__(self, other: FlopCounts) -> FlopCounts:
        """Of both."""
        return FlopCounts(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """One stage. `predicted_mfu`: also where another one is given. `memory` is of its most loaded rank;
    `fastest`: of all layouts that fit, None if none does."""

    name: str
    parameters: int
    tokens: int
    steps: int
    layout: Layout
    step: StepTime
    predicted_mfu: float
    memory: Footprint
    fits: bool
    fastest: Ranked | None
    flops: FlopCounts
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """All stages; `static` is what the last stage's model costs on the tokens of all, at its MFU.

    `search_flops`: of the search of its hyper-parameters, where it is known; in no other figure.
    """

    name: str
    setting: Setting
    stages: list[StagePlan]
    flops: FlopCounts
    total: Cost
    static: Cost
    search_flops: float | None = None


def setting_of(
    recipe: Recipe,
    machines: Machines,
    gpus: str | None = None,
    *,
    mfu: tuple[float, ...] = (),
    goodput: float | None = None,
    price_per_hour: float | None = None,
    grid: str | None = None,
) -> Setting:
    """Where a recipe runs: on `gpus` (`4xh100`, or `h100` for as many as its layouts need), or on one device
    of the kind that it names. A price that is not given is the recipe's, of all machines. Raises RecipeError.
    """
    count, gpu = parse_gpus(gpus or ("cpu" if recipe.train.device == "cpu" else "h100"), machines)
    count = count or ranks_of(recipe) or 1
    if price_per_hour is None and recipe.budget.price_per_hour is not None:
        price_per_hour = recipe.budget.price_per_hour / count
    return Setting(
        gpu=gpu,
        n_gpus=count,
        mfu=mfu,
        goodput=goodput or GOODPUT,
        price_per_hour=price_per_hour,
        grid=grid,
    )


def plan_recipe(recipe: Recipe, machines: Machines, setting: Setting) -> RunPlan:
    """Plan every stage of a recipe. Raises RecipeError if one cannot be laid out."""
    if len(setting.mfu) not in (0, 1, len(recipe.stages)):
        raise RecipeError(
            f"{len(setting.mfu)} MFUs for {len(recipe.stages)} stages", fix="give one, or one for each stage"
        )
    memory, per_node = setting.gpu.memory_bytes, setting.gpu.per_node
    stages = []
    for index in range(len(recipe.stages)):
        layout = choose_layout(recipe, index, setting.n_gpus, memory_bytes=memory, per_node=per_node)
        stages.append(plan_stage(recipe, index, layout, machines, setting))
    last, tokens = len(stages) - 1, sum(stage.tokens for stage in stages)
    each = flops_per_token(recipe.model_config_of(last), recipe.stages[last].seq_len)
    return RunPlan(
        name=recipe.name,
        setting=setting,
        stages=stages,
        flops=sum((stage.flops for stage in stages), FlopCounts()),
        total=sum((stage.cost for stage in stages), Cost()),
        static=_cost(each * tokens, stages[last].step.mfu, machines, setting),
    )


def plan_stage(recipe: Recipe, index: int, layout: Layout, machines: Machines, setting: Setting) -> StagePlan:
    """Plan one stage in a layout."""
    stage, config, work = recipe.stages[index], recipe.model_config_of(index), Work.of(recipe, index)
    given = setting.mfu[index if len(setting.mfu) > 1 else 0] if setting.mfu else None
    step = step_time(config, layout, work, setting.gpu, mfu=given)
    tokens = stage.steps * stage.tokens_per_step
    flops = _flops(config, layout, tokens, stage.seq_len)
    memory = most_loaded(config, layout, work)[1]
    return StagePlan(
        name=stage.name,
        parameters=n_parameters(config),
        tokens=tokens,
        steps=stage.steps,
        layout=layout,
        step=step,
        predicted_mfu=step.mfu if given is None else step_time(config, layout, work, setting.gpu).mfu,
        memory=memory,
        fits=memory.total <= setting.gpu.memory_bytes,
        fastest=best_layout(config, work, setting.n_gpus, setting.gpu),
        flops=flops,
        cost=_cost(flops.model, step.mfu, machines, setting),
    )


def _flops(config: ModelConfig, layout: Layout, tokens: int, seq_len: int) -> FlopCounts:
    shape = Shape(tokens, config.n_layers, config.d_model, seq_len, config.vocab_size)
    paper, half = shape.range
    return FlopCounts(
        model=flops_per_token(config, seq_len) * tokens,
        causal=causal_flops_per_token(config, seq_len) * tokens,
        executed=executed_flops_per_token(config, layout, seq_len) * tokens,
        paper=paper,
        paper_range=half,
    )


def _cost(flops: float, mfu: float, machines: Machines, setting: Setting) -> Cost:
    return cost_of(
        flops,
        setting.gpu,
        setting.n_gpus,
        mfu,
        setting.goodput,
        machines,
        price_per_hour=setting.price_per_hour,
        grid=setting.grid,
    )
