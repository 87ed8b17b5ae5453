"""Layouts drawn at random: one that is accepted trains as one process does, any other is refused as a recipe.

`GROWLM_LAYOUTS=300` draws as many; `GROWLM_LAYOUTS_FROM=40` begins with another one.
"""

import os
import random
from dataclasses import asdict
from typing import Any

import pytest

from growlm.errors import RecipeError
from growlm.plan.auto import choose_layout
from growlm.plan.layout import Layout
from growlm.recipe.check import check_recipe
from growlm.recipe.schema import Recipe
from growlm.testing.ranks import Ranks
from tests.model.tiny import NEEDS
from tests.parallel import jobs

FIRST, DRAWS = int(os.environ.get("GROWLM_LAYOUTS_FROM", "0")), int(os.environ.get("GROWLM_LAYOUTS", "12"))
FAMILIES = ("llama", "flm", "qwen2", "qwen3", "gpt2", "neox", "opt")


def drawn(draw: random.Random) -> tuple[Recipe, int, dict[str, Any]]:
    """A recipe of one stage, a number of processes, and how to train."""
    pick = draw.choice
    world, family, kv_heads = pick([1, 2, 2, 3, 4, 4, 4, 4]), pick(FAMILIES), pick([1, 2, 2, 4])
    deterministic = draw.random() < 0.1
    fields: dict[str, list[Any]] = {
        "dp": [None, None, None, 1, 2],
        "tp": [None, 1, 2, 2, 4],
        "pp": [None, 1, 2, 2, 3],
        "zero": [None, 0, 1, 2, 3],
        "replicas": [1, 1, 1, 2],
        "interleave": [1, 1, 1, 2],
        "sequence_parallel": [None, True, False],
        "recompute": ["none", "selective", "full"],
        "recompute_every": [1, 2],
    }
    layout = {name: pick(values) for name, values in fields.items()}
    stage = {
        "name": "only",
        "d_model": pick([16, 18, 24]),
        "n_heads": kv_heads * pick([1, 2]),
        "n_kv_heads": kv_heads,
        "d_ff": pick([24, 30, 32]),
        "n_layers": pick([0, 1, 2, 3, 4, 5]),
        "seq_len": pick([7, 8, 12]),
        "batch_size": pick([4, 8, 8, 12]),
        "micro_batch_size": pick([None, None, 1, 2]),
        "tokens": 1000,
        "layout": {name: value for name, value in layout.items() if value is not None},
    }
    model = {
        "family": family,
        "head_dim": 4,
        "vocab_size": pick([50, 51, 52, 64]),
        "tied": pick([True, False]),
    }
    recipe = {
        "name": "drawn",
        "model": model | NEEDS.get(family, {}),
        "data": {"path": "data", "mixture": {"en": 1.0}},
        "optim": {"lr": 1e-3},
        "schedule": {"warmup_steps": 0},
        "train": {"precision": "fp32", "deterministic": deterministic},
        "stages": [stage],
    }
    how = {"optimizer": pick(["adamw", "adamw", "muon"]), "grown": pick([True, False])}
    return Recipe.model_validate(recipe), world, how | {"deterministic": deterministic}


def accepted(draw: random.Random) -> tuple[Recipe, Layout, dict[str, Any]]:
    """The first that is drawn and not refused; whatever is refused raises RecipeError and nothing else."""
    while True:
        recipe, world, how = drawn(draw)
        try:
            check_recipe(recipe)
            return recipe, choose_layout(recipe, 0, world), how
        except RecipeError:
            continue


@pytest.mark.parametrize("seed", range(FIRST, FIRST + DRAWS))
def test_a_layout_is_refused_or_trains_as_one_process(ranks: Ranks, seed: int) -> None:
    recipe, layout, how = accepted(random.Random(seed))
    stage, config = recipe.stages[0], recipe.model_config_of(0)
    how |= {"batch": stage.batch_size, "length": stage.seq_len, "precision": "fp64"}
    told = ranks.run(jobs.differences, config.to_dict(), asdict(layout), how, size=layout.world)
    for rank, apart in enumerate(told):
        assert all(value < jobs.TOLERANCE["fp64"] for value in apart.values()), (
            rank,
            config,
            layout,
            how,
            apart,
        )
