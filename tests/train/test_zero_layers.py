"""A run that starts with no blocks at all (2511.04981) and grows them, and one whose heads grow."""

from pathlib import Path

import pytest

from growlm.errors import RecipeError
from growlm.model.parameters import n_parameters, parameter_table
from growlm.plan.flops import flops_per_token
from growlm.recipe.schema import Recipe
from growlm.recipe.shape import ModelConfig
from growlm.train.supervisor import run
from tests.train.conftest import MakeRecipe
from tests.train.helpers import killed, newest, outcome, records

SHAPE = "d_model = 16, n_heads = 2, d_ff = 32, seq_len = 16, batch_size = 8"
EMPTY = f"{{name = 'empty', n_layers = 0, tokens = 1536, {SHAPE}}}"


def stages(after: str) -> str:
    return f"stages=[{EMPTY}, {{name = 'after', tokens = 1536, {after}}}]"


RANDOM = stages(f"n_layers = 2, {SHAPE}, growth = {{depth = 'random'}}")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("family", ["llama", "flm"])
def test_it_trains_grows_and_resumes(recipe: MakeRecipe, family: str, optimizer: str, tmp_path: Path) -> None:
    made = recipe(RANDOM, f"model.family={family}", f"optim.name={optimizer}")
    run(made, tmp_path / "straight")
    losses = [step["loss"] for step in records(tmp_path / "straight", "step")]
    assert losses[11] < losses[0] - 0.05, "embedding and head learn on their own"
    assert losses[-1] < losses[11]
    growth = records(tmp_path / "straight", "growth")[0]
    assert [layer["from"] for layer in growth["certificate"]["layers"]] == [-1, -1]
    for death in ("train.after_step:kill@7", "checkpoint.write:kill@3", "train.after_step:kill@10"):
        killed(made, tmp_path / "run", death)
    run(made, tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "straight")


def test_new_blocks_have_a_clock_of_their_own(recipe: MakeRecipe, tmp_path: Path) -> None:
    run(recipe(RANDOM), tmp_path)
    births = newest(tmp_path).manifest.births
    assert {axis: runs for axis, runs in births.items() if runs} == {"layers": [[0, 2, 12]]}


def test_what_has_no_blocks_counts_none(recipe: MakeRecipe) -> None:
    config: ModelConfig = recipe(RANDOM).model_config_of(0)
    assert set(parameter_table(config)) == {"embedding.weight", "norm.weight"}
    assert n_parameters(config) == 320 * 16 + 16
    assert flops_per_token(config, 16) == 6 * 320 * 16


@pytest.mark.parametrize("depth", ["zero_block", "stack", "interpose"])
def test_there_is_nothing_to_copy(recipe: MakeRecipe, depth: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(RANDOM.replace("random", depth))
    assert "random" in caught.value.fix


def test_heads_grow_in_a_stage(recipe: MakeRecipe, tmp_path: Path) -> None:
    first = EMPTY.replace("n_layers = 0", "n_layers = 1")
    wide = (
        f"{{name = 'wide', n_layers = 1, head_dim = 16, tokens = 1536, {SHAPE}, growth = {{ramp_steps = 3}}}}"
    )
    made: Recipe = recipe(f"stages=[{first}, {wide}]")
    assert [made.head_dim_of(i) for i in (0, 1)] == [8, 16]
    run(made, tmp_path)
    assert records(tmp_path, "growth")[0]["certificate"]["exact"]
    assert newest(tmp_path).manifest.model["head_dim"] == 16
