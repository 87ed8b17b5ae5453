"""Pieces of all ranks make up the model; the published layouts are those of 192 ranks."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from growlm.model.parameters import n_parameters, parameter_table
from growlm.plan import layout as layouts
from growlm.plan.auto import choose_layout
from growlm.plan.layout import Layout, cut_layers, is_owner, pieces_of, written_by
from growlm.recipe.load import load_recipe
from growlm.recipe.shape import ModelConfig
from tests.model.tiny import config

LAYOUTS = [
    Layout(dp=3, zero=0),
    Layout(dp=4, zero=1),
    Layout(dp=4, tp=2, zero=3, replicas=2),
    Layout(dp=2, tp=2, pp=2, zero=1),
    Layout(pp=4, zero=0),
    Layout(dp=3, pp=2, interleave=3, zero=2),
    Layout(dp=40, zero=1),  # more ranks than a vector has rows
]


def model(family: str, *, tied: bool) -> ModelConfig:
    return config(family, tied=tied, n_layers=7)


@pytest.mark.parametrize("cut_from", [1, 100, 2**16])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(
    ("family", "tied"), [("flm", True), ("llama", False), ("qwen3", True), ("gpt2", True)]
)
def test_every_element_is_held_written_and_owned_as_often_as_it_should(
    family: str, tied: bool, layout: Layout, cut_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "CUT_FROM", cut_from)
    c = model(family, tied=tied)
    shapes = {name: p.shape for name, p in parameter_table(c).items()}
    held, written, owned = ({name: np.zeros(s, int) for name, s in shapes.items()} for _ in range(3))
    for rank in range(layout.world):
        for name, piece in pieces_of(c, layout, rank).items():
            held[name][piece.slices] += 1
            owned[name][piece.slices] += is_owner(c, layout, name, rank)
        for name, piece in written_by(c, layout, rank).items():
            written[name][piece.slices] += 1
    for name, p in parameter_table(c).items():
        ends = 2 if name == "embedding.weight" and tied and layout.pp > 1 else 1
        copies = layout.copies * ends * (1 if p.tp_dim is not None else layout.tp)
        assert (held[name] == copies).all()
        assert (written[name] == 1).all()
        assert (owned[name] == 1).all()


def test_small_pieces_are_written_whole_and_by_every_holder_in_turn() -> None:
    c, layout = load_recipe("flm-101b").model_config_of(0), Layout(dp=96, tp=2, zero=0)
    vectors = {name for name, p in parameter_table(c).items() if len(p.shape) == 1}
    written = [written_by(c, layout, rank) for rank in range(layout.world)]
    writers = {name: [rank for rank, pieces in enumerate(written) if name in pieces] for name in vectors}
    shared = [name for name in vectors if parameter_table(c)[name].tp_dim is None]
    assert all(len(writers[name]) == 1 for name in shared)
    assert len({rank for name in shared for rank in writers[name]}) > 64


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_the_192_ranks_of_flm_101b_write_every_weight_once(stage: int) -> None:
    recipe = load_recipe("flm-101b")
    c, layout = recipe.model_config_of(stage), choose_layout(recipe, stage, 192)
    assert (layout.tp, layout.pp, layout.dp) == [(2, 1, 96), (4, 2, 24), (4, 4, 12)][stage]
    pieces = [piece for rank in range(192) for piece in written_by(c, layout, rank).values()]
    assert sum(piece.numel for piece in pieces) == n_parameters(c)


@pytest.mark.parametrize("vocab_size", [50, 1000, 40_000])
@pytest.mark.parametrize(("n_layers", "parts"), [(7, 1), (7, 3), (8, 4), (5, 5), (9, 2)])
def test_layers_are_cut_so_that_no_cut_is_better(n_layers: int, parts: int, vocab_size: int) -> None:
    c = config("flm", n_layers=n_layers, vocab_size=vocab_size)
    block = sum(p.numel for p in parameter_table(c).values() if p.layer == 0 and p.role == "hidden")

    def costliest(edges: tuple[int, ...]) -> float:
        cost = [(b - a) * block for a, b in pairwise(edges)]
        cost[-1] += c.vocab_size * c.d_model
        return max(cost)

    runs = cut_layers(c, parts)
    assert [layer for run in runs for layer in run] == list(range(n_layers))
    assert all(runs)
    cuts = [(0, *inner, n_layers) for inner in combinations(range(1, n_layers), parts - 1)]
    best = min(map(costliest, cuts))
    assert costliest((0, *(run.stop for run in runs))) == best
