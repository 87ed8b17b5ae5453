"""LiGO against its closed form, and what learning the expansion does to the loss."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, repeat
from pathlib import Path

import pytest
import torch
from torch import Tensor

from growlm.growth.learned import Expansion, State, expand, learn, stacked
from growlm.growth.operators import Growth, plan_growth
from growlm.growth.weights import MemoryWeights
from growlm.model.parameters import parameter_table
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig
from growlm.testing.tiny import write_corpus
from tests.model.tiny import FAMILIES, IMPORTED, batch, config, decoder, trained

SHORT = 20


def ligo(old: ModelConfig, new: ModelConfig, **settings: int) -> Growth:
    table = GrowthTable.model_validate({"operator": "ligo", "depth": "stack", **settings})
    return plan_growth(old, new, table, seed=3)


def larger(c: ModelConfig) -> ModelConfig:
    """Every axis that can be: other d_model, kv groups, queries of a group, ffn, blocks, tokens."""
    return c.with_(d_model=27, n_heads=9, n_kv_heads=3, d_ff=40, n_layers=5, vocab_size=57)


def by_hand(growth: Growth, state: State, e: Expansion, name: str) -> Tensor:
    """W'_l = B_out (sum_j w_lj W_j) B_in^T, entry by entry over axes as (groups, queries, head_dim)."""
    p = parameter_table(growth.new)[name]
    E, old, new = growth.old.head_dim, growth.old, growth.new
    B = {axis: torch.cat([torch.eye(C.shape[1], dtype=C.dtype), C]) for axis, C in e.units.items()}
    q = torch.einsum("ab,cd,ef->acebdf", B["groups"], B["queries"], torch.eye(E, dtype=torch.float64))
    kv = torch.einsum("ab,ef->aebf", B["groups"], torch.eye(E, dtype=torch.float64))
    maps = {
        "d_model": B["d_model"],
        "ffn": B["ffn"],
        "q": q.reshape(new.n_heads * E, old.n_heads * E),
        "kv": kv.reshape(new.n_kv_heads * E, old.n_kv_heads * E),
    }
    if p.layer is None:
        source = state[name]
    else:
        w = e.blocks[p.at_layer(0)][p.layer]
        source = sum((w[j] * state[p.at_layer(j)] for j in range(old.n_layers)), torch.zeros(()))
    out, *into = [maps[axis] if axis in maps else torch.eye(n).double() for axis, n in _sizes(p.axes, source)]
    if not into:
        return torch.einsum("ij,j->i", out, source)
    return torch.einsum("ij,jk,lk->il", out, source, into[0])


def _sizes(axes: tuple[str, ...], tensor: Tensor) -> Iterator[tuple[str, int]]:
    return zip(axes, tensor.shape, strict=True)


@pytest.mark.parametrize(("family", "tied"), FAMILIES + IMPORTED)
def test_closed_form(family: str, tied: bool) -> None:
    old = config(family, tied=tied)
    growth, state = ligo(old, larger(old)), trained(old)
    e = Expansion.initial(growth, state["embedding.weight"])
    new = expand(growth, stacked(MemoryWeights(old, state)), e)
    for name, p in parameter_table(growth.new).items():
        assert new[name].shape == p.shape
        expected = by_hand(growth, state, e, name)
        torch.testing.assert_close(new[name][: len(expected)], expected, atol=1e-12, rtol=1e-12)


def test_where_it_starts() -> None:
    old = config()
    growth = ligo(old, larger(old))
    e = Expansion.initial(growth, torch.zeros(0, dtype=torch.float64))
    assert {axis: tuple(C.shape) for axis, C in e.units.items()} == {
        "d_model": (11, 16), "groups": (1, 2), "queries": (1, 2), "ffn": (16, 24),
    }  # fmt: skip
    for C in e.units.values():
        assert (C >= 0).all()
        torch.testing.assert_close(C.sum(1), torch.ones(len(C)).double())
    for w in e.blocks.values():
        torch.testing.assert_close(w.sum(1), torch.ones(5).double())
        assert torch.equal(w.argmax(1), torch.tensor([0, 1, 0, 1, 0]))


def test_old_units_stay_and_blocks_that_are_not_new_are_not_mixed() -> None:
    old = config()
    state = trained(old)
    growth = ligo(old, larger(old).with_(n_layers=old.n_layers))
    e = Expansion.initial(growth, state["embedding.weight"])
    assert not any(w.requires_grad for w in e.blocks.values())
    new = expand(growth, stacked(MemoryWeights(old, state)), e)
    for name in ("embedding.weight", "blocks.1.mlp.down_proj.weight", "blocks.1.attn_norm.weight"):
        corner = new[name][tuple(slice(n) for n in state[name].shape)]
        torch.testing.assert_close(corner, state[name], atol=0, rtol=1e-15)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    files = write_corpus(Path(tmp_path_factory.mktemp("corpus")))
    return torch.tensor(list(files["en"][0].read_bytes() + files["zh"][0].read_bytes()))


def draw(text: Tensor, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(0, len(text) - 25, (8,), generator=generator).tolist()
        windows = torch.stack([text[i : i + 25] for i in starts])
        yield windows[:, :-1], windows[:, 1:]


def small_model(text: Tensor) -> tuple[ModelConfig, State]:
    """A model of bytes that has learnt something."""
    c = config(vocab_size=256)
    model = decoder(c, {name: t.float() for name, t in trained(c).items()}).init_weights(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for x, y in islice(draw(text, 0), 60):
        model.loss(x, y).backward()
        optimizer.step()
        optimizer.zero_grad()
    return c, {name: p.detach() for name, p in model.named_parameters()}


def test_learning_lowers_the_loss_on_text_it_has_not_seen(text: Tensor) -> None:
    c, state = small_model(text)
    growth, weights = ligo(c, larger(c).with_(vocab_size=256), learn_steps=SHORT), MemoryWeights(c, state)
    seen, held_out = text[: len(text) * 3 // 4], next(draw(text[len(text) * 3 // 4 :], 1))
    start = expand(growth, stacked(weights), Expansion.initial(growth, state["embedding.weight"]))
    learned = learn(growth, weights, draw(seen, 2))
    with torch.no_grad():
        losses = [decoder(growth.new, dict(s)).loss(*held_out).item() for s in (start, learned)]
    assert losses[1] < losses[0] - 0.1
    assert not any(t.requires_grad for t in learned.values())


def test_the_same_bits_every_time_and_by_any_split_of_the_batch_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    c = config()
    growth, weights = ligo(c, larger(c), learn_steps=3), MemoryWeights(c, trained(c))
    first = learn(growth, weights, repeat(batch(c)))
    again = learn(growth, weights, repeat(batch(c)))
    monkeypatch.setattr("growlm.growth.learned.MICRO_TOKENS", 1)
    pieces = learn(growth, weights, repeat(batch(c)))
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
        torch.testing.assert_close(tensor, pieces[name], atol=1e-8, rtol=1e-8)


def test_16_bit_weights_are_learned_from_in_fp32() -> None:
    c = config()
    weights = MemoryWeights(c, {name: t.bfloat16() for name, t in trained(c).items()})
    learned = learn(ligo(c, larger(c), learn_steps=1), weights, repeat(batch(c)))
    assert {t.dtype for t in learned.values()} == {torch.float32}
