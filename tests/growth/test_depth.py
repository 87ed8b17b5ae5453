"""Where the blocks of a deeper model come from."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from growlm.growth.depth import DEPTH, Depth, LayerSource
from growlm.growth.operators import Growth, plan_growth
from growlm.model.init import init_rows
from growlm.model.parameters import parameter_table
from growlm.recipe.schema import GrowthTable
from tests.growth.tools import certificate, grown, table
from tests.model.tiny import State, batch, config, decoder, gradients, trained


def deeper(depth: str, old: int, new: int) -> tuple[Growth, State, State, State]:
    c = config("llama", n_layers=old)
    growth = plan_growth(c, c.with_(n_layers=new), table(depth=depth))
    state = trained(c)
    return growth, state, grown(growth, state), grown(growth, state, "exp_avg")


@pytest.mark.parametrize(
    ("depth", "old", "new", "order"),
    [
        ("stack", 2, 4, [0, 1, 0, 1]),
        ("stack", 3, 7, [0, 1, 2, 0, 1, 2, 0]),
        ("interpose", 2, 4, [0, 0, 1, 1]),
        ("interpose", 3, 4, [0, 0, 1, 2]),
        ("interpose", 2, 2, [0, 1]),
    ],
)
def test_copies_are_in_order_and_bring_their_moments(
    depth: str, old: int, new: int, order: list[int]
) -> None:
    growth, state, weights, moments = deeper(depth, old, new)
    assert [layer.source for layer in growth.layers] == order
    for i, source in enumerate(order):
        for part in ("attn.q_proj.weight", "attn_norm.weight", "mlp.down_proj.weight"):
            expected = state[f"blocks.{source}.{part}"]
            assert torch.equal(weights[f"blocks.{i}.{part}"], expected)
            assert torch.equal(moments[f"blocks.{i}.{part}"], expected)
    assert growth.exact is (old == new)


@pytest.mark.parametrize("depth", ["masked", "zero_block"])
def test_exact_blocks_copy_all_but_start_their_own_moments(depth: str) -> None:
    growth, state, weights, moments = deeper(depth, 2, 5)
    assert [layer.source for layer in growth.layers] == [0, 0, 0, 1, 1]
    assert [layer.new for layer in growth.layers] == [False, True, True, False, True]
    for i, layer in enumerate(growth.layers):
        prefix = f"blocks.{i}."
        for name in (n for n in weights if n.startswith(prefix)):
            source = state[f"blocks.{layer.source}.{name.removeprefix(prefix)}"]
            writer = name.endswith(("o_proj.weight", "down_proj.weight"))
            zeroed = layer.new and depth == "zero_block" and writer
            assert torch.equal(weights[name], torch.zeros_like(source) if zeroed else source)
            assert torch.equal(moments[name], torch.zeros_like(source) if layer.new else source)
    assert growth.ramp.layers == ((1, 2, 4) if depth == "masked" else ())


@pytest.mark.parametrize("depth", ["stack", "interpose"])
def test_copies_are_not_declared_exact_and_the_certificate_says_how_far_they_are(depth: str) -> None:
    growth, state, weights, _ = deeper(depth, 2, 4)
    result = certificate(growth, state, weights)
    assert not result["exact"]
    assert result["max_dlogit"] > 1e-3
    assert [x["from"] for x in result["layers"]] == [layer.source for layer in growth.layers]


def test_an_operator_of_your_own_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of docs/extending.md."""

    def bottom(old: int, new: int, _table: GrowthTable, _: Sequence[float]) -> list[LayerSource]:
        kept = [LayerSource(i) for i in range(old)]
        return [kept[0], *[LayerSource(0, "copy")] * (new - old), *kept[1:]]

    monkeypatch.setitem(DEPTH, "bottom", Depth(bottom, exact=False, source="", doc=""))
    c = config("llama", n_layers=3)
    growth = plan_growth(c, c.with_(n_layers=5), table().model_copy(update={"depth": "bottom"}))
    assert [layer.source for layer in growth.layers] == [0, 0, 0, 1, 2]
    assert not growth.exact
    assert not certificate(growth, trained(c), grown(growth, trained(c)))["exact"]


@pytest.mark.parametrize(
    ("depth", "old", "new", "order"),
    [
        ("stack", 6, 24, [*range(6)] * 4),  # G_stack, 2405.15319: factor 4
        ("gradual", 4, 6, [0, 1, 2, 3, 2, 3]),  # 2409.19044, figure 1: the last block of the stage before
        ("midas", 6, 8, [0, 1, 2, 3, 2, 3, 4, 5]),  # the middle of three blocks of two, again after itself
        ("midas", 4, 8, [0, 1, 2, 3, 0, 1, 2, 3]),  # one block: its own middle
        ("midas", 5, 7, [0, 1, 2, 1, 2, 3, 4]),  # no whole blocks: centred
        (
            "lidas",
            8,
            12,
            [0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7],
        ),  # 2512.08819: two from each side
        ("lidas", 4, 6, [0, 1, 1, 2, 2, 3]),
        ("solar", 32, 48, [*range(24), *range(8, 32)]),  # 2312.15166: 8 layers cut at the seam
        ("solar", 4, 7, [0, 1, 2, 3, 1, 2, 3]),
    ],
)
def test_published_orders(depth: str, old: int, new: int, order: list[int]) -> None:
    c = config("llama", n_layers=old)
    growth = plan_growth(c, c.with_(n_layers=new), table(depth=depth))
    assert [layer.source for layer in growth.layers] == order
    assert [layer.source for layer in growth.layers if not layer.new] == list(range(old))
    assert {layer.start for layer in growth.layers} == {"kept", "copy"}
    assert not growth.exact


def test_distance_copies_the_blocks_that_change_the_stream_least() -> None:
    c = config("llama", n_layers=4)
    growth = plan_growth(c, c.with_(n_layers=6), table(depth="distance"), distances=[0.9, 0.1, 0.5, 0.2])
    assert [layer.source for layer in growth.layers] == [0, 1, 1, 2, 3, 3]


@pytest.mark.parametrize("family", ["flm", "gpt2", "neox"])
def test_identity_blocks_do_nothing_and_wake_through_their_gains(family: str) -> None:
    """Gains and biases zero, square parts of matrices identities (2203.06211, 3.2)."""
    c = config(family)
    growth = plan_growth(c, c.with_(n_layers=4), table(depth="identity"))
    old = trained(c)
    new = grown(growth, old)
    assert certificate(growth, old, new)["max_dlogit"] <= 1e-10
    block = {name: w for name, w in new.items() if name.startswith("blocks.1.")}
    assert torch.equal(block["blocks.1.attn.o_proj.weight"], torch.eye(16, dtype=torch.float64))
    assert torch.equal(block["blocks.1.mlp.up_proj.weight"][:16], torch.eye(16, dtype=torch.float64))
    assert not any(w.any() for w in block.values() if w.dim() == 1)
    model = decoder(growth.new, new)
    grads = gradients(model, *batch(c))
    assert grads["blocks.1.attn_norm.weight"].any()
    assert grads["blocks.1.mlp_norm.weight"].any()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p -= 0.01 * grads[name]
    after = gradients(model, *batch(c))
    for name in (n for n in after if n.startswith("blocks.1.") and n.endswith("_proj.weight")):
        assert after[name].any(dim=1).all(), name  # every unit is awake after one step
        assert after[name].any(dim=0).all(), name


@pytest.mark.parametrize("depth", ["masked", "zero_block"])
def test_new_blocks_may_be_fresh_or_from_the_stack(depth: str) -> None:
    c = config("llama")
    old = trained(c)
    for source, order in (("stack", [0, 1, 0, 1]), ("random", [0, -1, 1, -1])):
        growth = plan_growth(c, c.with_(n_layers=4), table(depth=depth, layer_source=source))
        assert [layer.source for layer in growth.layers] == order
        assert certificate(growth, old, grown(growth, old))["max_dlogit"] <= 1e-10


def test_a_model_of_no_blocks_grows_fresh_ones() -> None:
    """Zero-layer training (2511.04981): embedding, final norm and head stay, every block is new."""
    c = config("llama", n_layers=0)
    growth = plan_growth(c, c.with_(n_layers=3), table(depth="random"), seed=4)
    old = trained(c)
    new = grown(growth, old)
    for name, p in parameter_table(growth.new).items():
        expected = old[name] if p.layer is None else init_rows(p, 4, 0, p.shape[0]).double()
        assert torch.equal(new[name], expected)
    assert not certificate(growth, old, new)["exact"]
