"""A recipe on a number of GPUs: layout, memory, time and money of every stage, and of the whole. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from growlm.errors import RecipeError
from growlm.model.parameters import n_parameters
from growlm.plan.activations import Work
from growlm.plan.auto import choose_layout
from growlm.plan.cost import GOODPUT, Cost, cost_of
from growlm.plan.flops import flops_per_token
from growlm.plan.footprint import Footprint, most_loaded
from growlm.plan.layout import Layout
from growlm.plan.machines import Gpu, Machines
from growlm.plan.step_time import StepTime, step_time
from growlm.recipe.schema import Recipe


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
class StagePlan:
    """One stage. `memory` is of its most loaded rank."""

    name: str
    parameters: int
    tokens: int
    steps: int
    layout: Layout
    step: StepTime
    memory: Footprint
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """All stages; `static` is what the last stage's model costs on the tokens of all, at its MFU."""

    name: str
    setting: Setting
    stages: list[StagePlan]
    total: Cost
    static: Cost


def plan_recipe(recipe: Recipe, machines: Machines, setting: Setting) -> RunPlan:
    """Plan every stage of a recipe. Raises RecipeError if one cannot be laid out."""
    if len(setting.mfu) not in (0, 1, len(recipe.stages)):
        raise RecipeError(
            f"{len(setting.mfu)} MFUs for {len(recipe.stages)} stages", fix="give one, or one for each stage"
        )
    stages = [_plan_stage(recipe, index, machines, setting) for index in range(len(recipe.stages))]
    last, tokens = len(stages) - 1, sum(stage.tokens for stage in stages)
    each = flops_per_token(recipe.model_config_of(last), recipe.stages[last].seq_len)
    return RunPlan(
        name=recipe.name,
        setting=setting,
        stages=stages,
        total=sum((stage.cost for stage in stages), Cost()),
        static=_cost(each * tokens, stages[last].step.mfu, machines, setting),
    )


def _plan_stage(recipe: Recipe, index: int, machines: Machines, setting: Setting) -> StagePlan:
    stage, config, work = recipe.stages[index], recipe.model_config_of(index), Work.of(recipe, index)
    layout = choose_layout(
        recipe, index, setting.n_gpus, memory_bytes=setting.gpu.memory_bytes, per_node=setting.gpu.per_node
    )
    given = setting.mfu[index if len(setting.mfu) > 1 else 0] if setting.mfu else None
    step = step_time(config, layout, work, setting.gpu, mfu=given)
    tokens = stage.steps * stage.tokens_per_step
    return StagePlan(
        name=stage.name,
        parameters=n_parameters(config),
        tokens=tokens,
        steps=stage.steps,
        layout=layout,
        step=step,
        memory=most_loaded(config, layout, work)[1],
        cost=_cost(flops_per_token(config, stage.seq_len) * tokens, step.mfu, machines, setting),
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
