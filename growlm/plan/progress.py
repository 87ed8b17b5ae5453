"""How much of a run there is, and is left, by its recipe. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from growlm.errors import RecipeError
from growlm.plan.activations import Work
from growlm.plan.auto import choose_layout
from growlm.plan.flops import flops_per_token
from growlm.plan.machines import load_machines
from growlm.plan.step_time import step_time
from growlm.recipe.schema import Recipe


def total_tokens(recipe: Recipe) -> int:
    """Tokens of the whole run."""
    return sum(s.steps * s.tokens_per_step for s in recipe.stages)


def planned_mfus(recipe: Recipe, device: str, ranks: int) -> list[float]:
    """The MFU that is predicted for every stage on devices of a name that torch gives them; all 1 where the
    device, or a layout, is not known."""
    gpu, unknown = load_machines().of_device(device), [1.0] * len(recipe.stages)
    if gpu is None:
        return unknown
    memory = None if device == "cpu" else gpu.memory_bytes
    mfus = []
    for index in range(len(recipe.stages)):
        try:
            layout = choose_layout(recipe, index, ranks, memory_bytes=memory, per_node=gpu.per_node)
        except RecipeError:
            return unknown
        config, work = recipe.model_config_of(index), Work.of(recipe, index)
        mfus.append(step_time(config, layout, replace(work, cpu=device == "cpu"), gpu).mfu)
    return mfus


def remaining_flops(recipe: Recipe, stage: int, tokens: float) -> float:
    """Model FLOPs to the end of the run, `tokens` into `stage`."""
    return remaining_seconds(recipe, stage, tokens, 1.0, [1.0] * len(recipe.stages))


def remaining_seconds(
    recipe: Recipe, stage: int, tokens: float, flops_per_second: float, mfus: Sequence[float]
) -> float:
    """Time to the end of the run, `tokens` into `stage`, which runs at `flops_per_second`; later stages run
    faster or slower as their `mfus` say."""
    left = 0.0
    for i, s in enumerate(recipe.stages[stage:], start=stage):
        rest = s.steps * s.tokens_per_step - (tokens if i == stage else 0)
        speed = flops_per_second * mfus[i] / mfus[stage]
        left += max(0.0, rest) * flops_per_token(recipe.model_config_of(i), s.seq_len) / speed
    return left
