"""All layouts that fit are ranked, and of the others it is said why they are out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from growlm.plan.activations import Work
from growlm.plan.auto import choose_layout
from growlm.plan.footprint import most_loaded
from growlm.plan.layout import Layout
from growlm.plan.machines import load_machines
from growlm.plan.ranking import FITS, best_layout, rank_layouts
from growlm.plan.step_time import step_time
from growlm.recipe.load import load_recipe

A800 = load_machines().gpu("a800")
FLM = load_recipe("flm-101b")


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_layouts_of_flm_101b_are_among_the_fastest(stage: int) -> None:
    """2309.03852, table 2: what was chosen for these GPUs is within a tenth of the best prediction."""
    config, work = FLM.model_config_of(stage), Work.of(FLM, stage)
    ranking, theirs = rank_layouts(FLM, stage, 192, A800), choose_layout(FLM, stage, 192)
    found = next(r for r in ranking.fits if r.layout == theirs)
    assert found.step == step_time(config, theirs, work, A800)
    assert found.memory == most_loaded(config, theirs, work)[1].total
    assert found.step.seconds < 1.1 * ranking.fits[0].step.seconds
    assert [r.step.seconds for r in ranking.fits] == sorted(r.step.seconds for r in ranking.fits)
    assert all(r.memory <= FITS * A800.memory_bytes for r in ranking.fits)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_the_quick_search_finds_almost_the_fastest(stage: int) -> None:
    best = best_layout(FLM.model_config_of(stage), Work.of(FLM, stage), 192, A800)
    assert best is not None
    assert best.step.seconds <= 1.05 * rank_layouts(FLM, stage, 192, A800).fits[0].step.seconds


def test_every_split_of_the_gpus_is_ranked_or_rejected() -> None:
    ranking = rank_layouts(FLM, 2, 192, A800)
    fits = {f"tp {r.layout.tp} x pp {r.layout.pp}" for r in ranking.fits}
    out = {rejected.what.split(",")[0] for rejected in ranking.rejected}
    for tp in (1, 2, 4, 8):
        for pp in (pp for pp in range(1, 81) if 192 % (tp * pp) == 0):
            assert f"tp {tp} x pp {pp}" in fits | out
    why = {rejected.what: rejected.why for rejected in ranking.rejected}
    assert why["tp 3 x pp 1"] == "tp 3 does not divide n_heads 80"
    assert why["tp 1 x pp 1"] == "batch_size 2160 is not a multiple of dp 192"
    assert why["tp 4 x pp 2, ZeRO 1"].startswith("needs 96")
    assert why["tp 4 x pp 2, ZeRO 1"].endswith("of 72 that may be filled")


def test_pipelines_have_blocks_and_micro_batches_to_fill_them() -> None:
    recipe = load_recipe("flm-101b", ["stages.0.batch_size=8", "stages.0.n_layers=6", "stages.0.layout=auto"])
    ranking = rank_layouts(recipe, 0, 8, A800)
    for ranked in ranking.fits:
        assert Work.of(recipe, 0).micro_batches(ranked.layout) >= ranked.layout.pp
    assert not any("tp 1 x pp 8" in r.what for r in ranking.rejected), "there are only 6 blocks"


def test_a_deterministic_run_keeps_whole_copies() -> None:
    settings = ["train.deterministic=true", *(f"stages.{i}.micro_batch_size=1" for i in range(3))]
    ranking = rank_layouts(load_recipe("laptop", settings), 0, 4, A800)
    assert {(r.layout.tp, r.layout.pp, r.layout.zero) for r in ranking.fits} == {(1, 1, 0)}
    assert any("deterministic" in r.why for r in ranking.rejected)


def test_nothing_fits_into_too_little_memory() -> None:
    tiny = replace(A800, memory_bytes=2**30)
    ranking = rank_layouts(FLM, 2, 192, tiny)
    assert not ranking.fits
    assert best_layout(FLM.model_config_of(2), Work.of(FLM, 2), 192, tiny) is None
    assert min(r.bytes_needed for r in ranking.rejected if r.bytes_needed) > 2**30


def test_one_gpu_has_one_split() -> None:
    laptop = load_recipe("laptop")
    best = best_layout(laptop.model_config_of(0), Work.of(laptop, 0), 1, A800)
    assert best is not None
    assert best.layout == Layout(zero=0, micro_batch=best.layout.micro_batch)
