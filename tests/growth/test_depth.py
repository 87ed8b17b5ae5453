"""Where the blocks of a deeper model come from."""

from __future__ import annotations

import pytest
import torch

from growlm.growth.operators import DEPTH, Growth, LayerSource, plan_growth
from tests.growth.tools import certificate, grown, table
from tests.model.tiny import State, config, trained


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

    def middle(old: int, new: int) -> tuple[LayerSource, ...]:
        kept = [LayerSource(i) for i in range(old)]
        copies = [LayerSource(old // 2, new=True)] * (new - old)
        return tuple(kept[: old // 2 + 1] + copies + kept[old // 2 + 1 :])

    monkeypatch.setitem(DEPTH, "middle", middle)
    c = config("llama", n_layers=3)
    growth = plan_growth(c, c.with_(n_layers=5), table().model_copy(update={"depth": "middle"}))
    assert [layer.source for layer in growth.layers] == [0, 1, 1, 1, 2]
    assert not growth.exact
    assert not certificate(growth, trained(c), grown(growth, trained(c)))["exact"]
