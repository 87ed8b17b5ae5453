"""Growing slices of rows gives the same tensor as growing it whole, and reads only what it needs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from growlm.growth import chunks
from growlm.growth.apply import Kind, grow_rows
from growlm.growth.maps import NEW, AxisMap, halves, keep, nested, ranges, tile
from growlm.growth.operators import plan_growth
from growlm.growth.width import WIDTH
from growlm.model.parameters import parameter_table
from tests.checkpoint.helpers import in_child
from tests.growth.tools import everything, grown, reachable, table
from tests.model.tiny import FAMILIES, config, trained


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
@pytest.mark.parametrize("operator", sorted(WIDTH))
@pytest.mark.parametrize("kind", ["weight", "exp_avg", "exp_avg_sq"])
def test_slices_equal_the_whole(family: str, tied: bool, operator: str, kind: Kind) -> None:
    old = config(family, tied=tied)
    how = table(operator=operator, noise=0.1, split=0.3)
    growth = plan_growth(old, reachable(old, operator), how, seed=5)
    state = trained(old, dtype=torch.float32)
    whole = grown(growth, state, kind)
    rng = np.random.default_rng(0)
    for name, p in parameter_table(growth.new).items():
        assert whole[name].shape == p.shape
        cuts = [0, *sorted(rng.choice(np.arange(1, p.shape[0]), 3, replace=False).tolist()), p.shape[0]]
        pieces = [grow_rows(growth, p, kind, a, b, lambda n, i, j: state[n][i:j]) for a, b in pairwise(cuts)]
        assert torch.equal(torch.cat(pieces), whole[name]), name


def test_a_slice_reads_only_the_rows_it_comes_from() -> None:
    old = config("llama")
    growth = plan_growth(old, old.with_(d_ff=31), table(operator="masked"))
    p = parameter_table(growth.new)["blocks.0.mlp.up_proj.weight"]
    state, read = trained(old), []

    def reader(name: str, start: int, stop: int) -> torch.Tensor:
        if stop > start:
            read.append((name, start, stop))
        return state[name][start:stop]

    grow_rows(growth, p, "weight", 20, 27, reader)
    grow_rows(growth, p, "weight", 27, 31, reader)
    assert read == [(p.name, 20, 24)]


def test_a_seed_decides_the_new_weights() -> None:
    old = config("llama")
    target = everything(old, multiple=False)
    growths = [plan_growth(old, target, table(operator="masked"), seed=seed) for seed in (1, 1, 2)]
    first, again, other = (grown(growth, trained(old))["embedding.weight"] for growth in growths)
    assert torch.equal(first, again)
    assert (first[50:] != other[50:]).all()
    assert torch.equal(first[:50, :16], other[:50, :16])


def test_tile_shares_sum_to_one_and_the_split_goes_to_the_first_copy() -> None:
    for old, new, split in ((3, 3, 0.5), (3, 6, 0.5), (4, 7, 0.3), (2, 4, 0.7), (2, 9, 0.7)):
        m = tile(old, new, split)
        np.testing.assert_allclose(np.bincount(m.source, weights=m.share), 1.0)
        if new <= 2 * old and new > old:
            assert m.share[0] == split
        if split != 0.5:  # no two copies of a unit have the same share
            assert len({*zip(m.source.tolist(), m.share.tolist(), strict=True)}) == new
    assert tile(3, 3).is_identity
    assert tile(2, 4, 0.5).share.tolist() == [0.5] * 4


def test_heads_are_laid_out_by_group_then_query() -> None:
    m = nested(nested(keep(2, 3), keep(2, 3)), keep(2, 2))  # 2 groups of 2 queries -> 3 groups of 3
    heads = m.source.reshape(9, 2)
    assert heads[:, 0].tolist() == [0, 2, NEW, 4, 6, NEW, NEW, NEW, NEW]
    assert ((heads[:, 1] == heads[:, 0] + 1) | (heads[:, 0] == NEW)).all()


def test_a_head_grows_by_pairs() -> None:
    """Coordinates i and i + half are rotated together, so new ones go to the end of each half."""
    assert halves(keep(2, 3)).source.tolist() == [0, 1, NEW, 2, 3, NEW]
    assert halves(tile(2, 4)).source.tolist() == [0, 1, 0, 1, 2, 3, 2, 3]


def test_pairs_are_disjoint_and_of_one_unit() -> None:
    m = tile(3, 8)  # 0 1 2 0 1 2 0 1: units 0 and 1 have three copies, unit 2 has two
    one, other = m.pairs
    assert (m.source[one] == m.source[other]).all()
    assert sorted([*one, *other]) == [0, 1, 2, 3, 4, 5]


def test_ranges_are_runs() -> None:
    assert ranges(np.array([1, 1, 0, 1], dtype=bool)) == ((0, 2), (3, 4))
    assert ranges(np.zeros(3, dtype=bool)) == ()


def test_new_units_may_stand_before_old_ones() -> None:
    """An operator of your own may put NEW anywhere, also right before unit 0."""
    old = config("llama", n_layers=1)
    growth = plan_growth(old, old.with_(d_ff=26), table(operator="masked"))
    first = AxisMap(np.array([NEW, *range(24), NEW]), np.ones(26))
    moved = type(growth)(**{**vars(growth), "maps": {**growth.maps, "ffn": first}})
    state = trained(old)
    assert torch.equal(
        grown(moved, state)["blocks.0.mlp.up_proj.weight"][1:25], state["blocks.0.mlp.up_proj.weight"]
    )


def test_a_forked_child_has_workers_of_its_own() -> None:
    assert chunks._workers().submit(int).result() == 0
    assert in_child(lambda: chunks._workers().submit(int).result(timeout=20)) == 0
