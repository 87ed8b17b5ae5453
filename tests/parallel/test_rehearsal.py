"""Dry runs: full-size layouts in one process; what does not fit together is found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from growlm.errors import GrowLMError, RecipeError
from growlm.model.parameters import n_parameters
from growlm.parallel import rehearsal
from growlm.parallel.rehearsal import check_tiling, rehearse
from growlm.plan.layout import Layout, written_by
from growlm.plan.pieces import Piece
from growlm.recipe.load import load_recipe
from growlm.recipe.schema import Recipe
from tests.cli.run_cli import growlm

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe(RECIPES / "laptop.toml")


def test_flm_101b_is_laid_out_as_in_the_paper() -> None:
    """2309.03852, table 2: dp x tp x pp of the three stages on 192 GPUs."""
    done = growlm("train", RECIPES / "flm-101b.toml", "--dry-run", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["ranks"] == 192
    layouts = [tuple(stage["layout"][d] for d in ("dp", "tp", "pp")) for stage in found["stages"]]
    assert layouts == [(96, 2, 1), (24, 4, 2), (12, 4, 4)]
    made = load_recipe(RECIPES / "flm-101b.toml")
    for index, stage in enumerate(found["stages"]):
        config = made.model_config_of(index)
        assert stage["parameters"] == n_parameters(config)
        assert stage["memory"]["weights"] <= 4 * stage["largest_share"]
        assert stage["ranks_built"] == 2 * stage["layout"]["pp"]


@pytest.mark.slow
def test_tele_flm_1t_over_896_ranks() -> None:
    done = growlm("train", RECIPES / "tele-flm-1t.toml", "--dry-run")
    assert done.code == 0, done.err
    assert "3 stages over 896 ranks" in done.out


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_every_rank_of_a_small_layout_is_as_planned(recipe: Recipe, world: int) -> None:
    for index in range(len(recipe.stages)):
        r = rehearse(recipe, index, world, None)
        written = sum(
            piece.numel
            for rank in range(world)
            for piece in written_by(recipe.model_config_of(index), r.layout, rank).values()
        )
        assert written == r.parameters == n_parameters(recipe.model_config_of(index))
        assert world * r.largest_share >= r.parameters
    assert not torch.distributed.is_initialized()


def test_what_does_not_divide_is_found(recipe: Recipe) -> None:
    config = recipe.model_config_of(0).with_(d_ff=770)  # 770 / 4 is no whole number
    with pytest.raises(GrowLMError, match="planned was"):
        rehearsal._build(config, Layout(tp=4), 3, 1, False)


def test_a_gap_between_pieces_is_found(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    config = recipe.model_config_of(0)
    check_tiling(config, Layout(dp=4))

    def short(parameter: object, *, tp: tuple[int, int], shard: tuple[int, int]) -> Piece:
        assert tp == (0, 1)
        piece = real(parameter, tp=tp, shard=shard)  # type: ignore[arg-type]
        rows = piece.ranges[0]
        return replace(piece, ranges=((rows[0], max(rows[0], rows[1] - 1)), *piece.ranges[1:]))

    real = rehearsal.piece_of
    monkeypatch.setattr(rehearsal, "piece_of", short)
    with pytest.raises(GrowLMError, match="do not make it up"):
        check_tiling(config, Layout(dp=4))


def test_a_world_that_no_stage_can_use_is_refused(recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="batch_size"):
        rehearse(recipe, 0, 5, None)


def test_ranks_without_a_dry_run_are_refused() -> None:
    done = growlm("train", RECIPES / "laptop.toml", "--ranks", "4")
    assert done.code == 2
    assert "--dry-run" in done.err
