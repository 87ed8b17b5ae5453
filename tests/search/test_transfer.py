"""Sweeps of the learning rate over sizes: at the base shape every parametrization is one training."""

import math
from itertools import pairwise
from pathlib import Path

import pytest

from growlm.data.prepare import prepare
from growlm.recipe.load import load_recipe
from growlm.recipe.schema import Recipe
from growlm.search.transfer import Sweep, sized, sweep
from growlm.testing.tiny import VOCABULARY, write_corpus, write_recipe
from growlm.train.record import read_record

ONE = (
    "stages=[{name = 'only', d_model = 32, n_heads = 4, d_ff = 64, n_layers = 2,"
    " tokens = 1024, seq_len = 16, batch_size = 8}]"
)


def target(folder: Path, kind: str) -> Recipe:
    """Eight steps at width 32 and two layers; the base is 16 wide and has as many."""
    base = {"sp": [], "mup": ["model.mup_base_d_model=16"]}
    base["completep"] = [*base["mup"], "model.mup_base_n_layers=2"]
    return load_recipe(folder / "tiny.toml", [ONE, f"model.parametrization={kind}", *base[kind]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer")
    prepare(folder / "data", write_corpus(folder / "text"), vocab_size=VOCABULARY, validation_share=0.1)
    write_recipe(folder / "tiny.toml", folder / "data")
    return folder


def test_at_the_base_shape_all_parametrizations_are_one_training(folder: Path) -> None:
    losses = []
    for kind in ("sp", "mup", "completep"):
        s = sweep(
            kind,
            target(folder, kind),
            "width",
            [16],
            [2**-6],
            folder / "runs",
            3,
            lambda _: None,
            {16: {2**-7: 9.0, 2**-5: 9.0}},
        )
        losses.append(s.losses[16][2**-6])
    assert losses[0] == losses[1] == losses[2]


def test_with_the_layers_of_the_base_completep_is_mup_at_every_width(folder: Path) -> None:
    for width in (16, 32):
        mup, completep = (
            sized(target(folder, kind), "width", width).model_config_of(0) for kind in ("mup", "completep")
        )
        assert completep.with_(mup_base_n_layers=None) == mup
        assert completep.residual_mult == 1


@pytest.mark.slow
def test_a_sweep_goes_on_until_the_best_rate_lies_between_and_repeats_nothing(
    folder: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    first = sweep("mup", target(folder, "mup"), "width", [16, 32], [2**-6, 2**-5], tmp_path, 2, said.append)
    for size in (16, 32):
        rates, best = sorted(first.losses[size]), first.best(size)
        assert {best / 2, best * 2} <= set(rates)
        assert all(math.isclose(b / a, 2) for a, b in pairwise(rates))
    assert len(said) == sum(map(len, first.losses.values()))
    again = sweep("mup", target(folder, "mup"), "width", [16, 32], [2**-6, 2**-5], tmp_path, 2, said.append)
    assert again == first
    for run in tmp_path.iterdir():
        assert sum(r["kind"] == "step" for r in read_record(run / "metrics.jsonl")) == 8


def test_notches_and_the_vertex_of_a_known_optimum() -> None:
    row = {
        n: {2.0**k: 3 + 0.1 * (k - at) ** 2 for k in range(-10, -3)} for n, at in ((32, -6.2), (256, -8.9))
    }
    s = Sweep("sp", "width", row)
    assert s.moved() == {32: 0, 256: -3}
    assert [math.log2(s.vertex(n) or 1) for n in (32, 256)] == pytest.approx([-6.2, -8.9])
    assert Sweep("sp", "width", {32: {1.0: 2.0, 2.0: 3.0}}).vertex(32) is None
