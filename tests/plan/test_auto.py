"""What is given is taken, what is open is chosen, and what cannot be is one error with its way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from growlm.errors import RecipeError
from growlm.plan.activations import Work
from growlm.plan.auto import FITS, choose_layout
from growlm.plan.footprint import most_loaded
from growlm.plan.layout import Layout
from growlm.recipe.load import load_recipe
from growlm.recipe.schema import Recipe
from growlm.testing.tiny import RECIPE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The tiny recipe, with stages that more ranks can share."""
    path = tmp_path / "r.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def chosen(path: Path, stage: str, world: int, *settings: str, memory: int | None = None) -> Layout:
    recipe = load_recipe(path, [f"stages.{stage}.{setting}" for setting in settings])
    index = [s.name for s in recipe.stages].index(stage)
    return choose_layout(recipe, index, world, memory_bytes=memory)


def test_one_process_is_what_it_was(path: Path) -> None:
    recipe = load_recipe(path)
    for index, stage in enumerate(recipe.stages):
        micro = stage.micro_batch_size or stage.batch_size
        assert choose_layout(recipe, index, 1, memory_bytes=1) == Layout(zero=0, micro_batch=micro)


def test_without_a_known_memory_all_ranks_are_data_parallel(path: Path) -> None:
    assert chosen(path, "small", 4) == Layout(dp=4, zero=1, micro_batch=2)
    assert chosen(path, "words", 4) == Layout(dp=4, zero=1, micro_batch=1)
    assert chosen(path, "clone", 4, "layout.tp=2") == Layout(
        dp=2, tp=2, zero=1, micro_batch=4, sequence_parallel=True
    )
    whole = chosen(path, "clone", 2, "layout.tp=2", "layout.sequence_parallel=false")
    assert whole == Layout(tp=2, zero=0, micro_batch=8)


def test_what_is_given_is_taken(path: Path) -> None:
    given = (
        "layout={ dp = 2, tp = 2, pp = 2, zero = 1, replicas = 2, recompute = 'full', recompute_every = 3, "
        "compile = true, interleave = 1 }"
    )
    assert chosen(path, "clone", 8, given, "micro_batch_size=1") == Layout(
        dp=2,
        tp=2,
        pp=2,
        zero=1,
        replicas=2,
        sequence_parallel=True,
        micro_batch=1,
        recompute="full",
        recompute_every=3,
        compile=True,
    )
    assert chosen(path, "clone", 8, "layout={ tp = 2, pp = 2, zero = 0 }", memory=1).zero == 0
    assert chosen(path, "clone", 2, "layout={ zero = 3 }").zero == 3


@pytest.mark.parametrize("zero", [2, 3])
def test_no_pipeline_is_chosen_where_it_could_not_do_what_was_asked(zero: int) -> None:
    free, asked = ("stages.1.layout=auto",), f"stages.1.layout={{ zero = {zero} }}"
    layouts = [
        choose_layout(load_recipe("flm-101b", [*free, *more]), 1, 192, memory_bytes=80 * 10**9)
        for more in ((), (asked,))
    ]
    assert [layout.pp for layout in layouts] == [2, 1]
    assert layouts[1].zero == zero
    with pytest.raises(RecipeError, match=f"has zero = {zero} and pp = 2"):
        load_recipe("flm-101b", [*free, asked, "stages.1.layout.pp=2"])


def test_a_pipeline_has_micro_batches_to_fill_it(path: Path) -> None:
    assert chosen(path, "clone", 2, "layout.pp=2").micro_batch == 2, "2 pp of the 8 sequences"
    assert chosen(path, "clone", 4, "layout.pp=2").micro_batch == 1
    assert chosen(path, "words", 4, "layout.pp=2", "micro_batch_size=1").micro_batch == 1, "just pp"
    interleaved = ("layout={ pp = 2, interleave = 2 }", "n_layers=4", "batch_size=12", "tokens=9000")
    assert chosen(path, "words", 2, *interleaved).micro_batch == 1
    assert chosen(path, "words", 2, *interleaved, "micro_batch_size=3").micro_batch == 3


def test_a_deterministic_run_keeps_whole_copies(path: Path) -> None:
    settings = ["train.deterministic=true", *(f"stages.{i}.micro_batch_size=1" for i in range(4))]
    recipe = load_recipe(path, settings)
    assert choose_layout(recipe, 0, 4, memory_bytes=1) == Layout(dp=4, zero=0, micro_batch=1)
    with pytest.raises(RecipeError, match="over a power of two of processes, and 3 were started"):
        choose_layout(recipe, 0, 3)


def needs(recipe: Recipe, index: int, layout: Layout) -> int:
    return most_loaded(recipe.model_config_of(index), layout, Work.of(recipe, index))[1].total


@pytest.mark.parametrize("gib", [24, 40, 80])
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_what_is_chosen_fits_and_nothing_smaller_does(stage: int, gib: int) -> None:
    auto = [f"stages.{i}.layout=auto" for i in range(3)]
    full = [f"stages.{i}.layout.recompute=full" for i in range(3)] if gib == 24 else []
    recipe, memory = load_recipe("flm-101b", [*auto, *full]), gib * 2**30
    layout = choose_layout(recipe, stage, 192, memory_bytes=memory)
    assert layout.world == 192
    assert needs(recipe, stage, layout) <= FITS * memory
    assert layout.tp <= 8
    ranks = layout.tp * layout.pp
    for smaller in (n for n in (1, 2, 4, 8) if n < ranks):
        pinned = [f"stages.{stage}.layout.{key}" for key in (f"tp={smaller}", "pp=1", f"zero={layout.zero}")]
        found = layout_or_why([*auto, *full, *pinned], stage)
        if isinstance(found, str):
            assert (
                "batch_size 2160, not a multiple" in found or "tp = 8 does not divide n_heads = 76" in found
            )
        else:  # the recipe gives the micro-batch
            assert needs(recipe, stage, found) > FITS * memory


def layout_or_why(overrides: list[str], stage: int) -> Layout | str:
    """What is chosen for FLM-101B over 192 ranks whatever their memory, or why nothing can be."""
    try:
        return choose_layout(load_recipe("flm-101b", overrides), stage, 192)
    except RecipeError as error:
        return str(error)


def test_the_first_two_layouts_of_flm_101b_are_chosen() -> None:
    """2309.03852, table 2, on 192 GPUs with 80 GB."""
    recipe = load_recipe("flm-101b", [f"stages.{i}.layout=auto" for i in range(3)])
    chosen = [choose_layout(recipe, stage, 192, memory_bytes=80 * 10**9) for stage in (0, 1)]
    assert [(c.dp, c.tp, c.pp, c.zero) for c in chosen] == [(96, 2, 1, 1), (24, 4, 2, 1)]


# Stage, processes, its settings, what the error says, where it points and what it advises.
BAD = [
    (
        "clone",
        4,
        ("layout={ dp = 2, tp = 2, pp = 2 }",),
        "over 8 ranks (dp 2 x tp 2 x pp 2), and 4 were",
        "8 -m",
    ),
    (
        "clone",
        1,
        ("layout={ dp = 2, tp = 1, pp = 1 }",),
        "over 2 ranks (dp 2 x tp 1 x pp 1), and 1 was",
        "2 -m",
    ),
    (
        "clone",
        3,
        ("layout.tp=2",),
        "over a multiple of 2 ranks (tp 2), and 3 were",
        "stages.clone.layout=auto",
    ),
    (
        "clone",
        3,
        (),
        "batch_size 8, not a multiple of dp 3",
        "batch_size = 9, or start a number of processes",
    ),
    ("words", 8, (), "batch_size 4, not a multiple of dp 8", "a number of processes that divides 4"),
    ("clone", 4, ("micro_batch_size=4",), "multiple of dp 4 x micro_batch_size 4", "batch_size = 16"),
    ("clone", 8, ("layout.replicas=3",), "replicas = 3, which does not divide dp = 8", "a divisor of 8"),
    ("clone", 3, ("layout.pp=3", "micro_batch_size=4"), "8 sequences for each of dp 1", "batch_size = 12"),
]


@pytest.mark.parametrize(("stage", "world", "settings", "what", "fix"), BAD)
def test_what_cannot_be_laid_out_is_one_error(
    path: Path, stage: str, world: int, settings: tuple[str, ...], what: str, fix: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        chosen(path, stage, world, *settings)
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert caught.value.where.startswith(f"stages.{stage}.")


def test_a_run_over_many_machines_is_started_on_all_of_them() -> None:
    with pytest.raises(RecipeError) as caught:
        choose_layout(load_recipe("flm-101b"), 0, 4)
    assert caught.value.what == (
        "the recipe lays stage 16b over 192 ranks (dp 96 x tp 2 x pp 1), and 4 were started"
    )
    assert "torchrun --nnodes 24 --nproc-per-node 8 -m -- growlm train" in caught.value.fix


def test_too_little_memory_says_how_much_is_needed(path: Path) -> None:
    with pytest.raises(RecipeError, match="no layout of stage clone over 2 processes") as caught:
        chosen(path, "clone", 2, memory=1000)
    assert 'recompute = "full"' in caught.value.fix
    assert "GiB" in caught.value.why
