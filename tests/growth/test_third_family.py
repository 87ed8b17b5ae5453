"""A family is a table and nothing else: one that the package does not have initialises, trains and grows."""

from __future__ import annotations

import pytest
import torch

from growlm.growth.certify import require
from growlm.growth.operators import plan_growth
from growlm.model.decoder import Decoder
from growlm.model.parameters import n_parameters, parameter_table
from growlm.recipe.families import FAMILIES, Family
from growlm.recipe.families import decoder as slots
from tests.growth.tools import certificate, everything, grown, table
from tests.model.tiny import batch, config, trained


@pytest.fixture(autouse=True)
def _third_family(monkeypatch: pytest.MonkeyPatch) -> None:
    """LayerNorm with SwiGLU and RoPE, biases on queries, keys and values only."""
    family = Family(
        slots=slots(gated=True, norm_bias=True, qkv_bias=True, out_bias=False),
        norm="layer",
        position="rope",
        activation="silu",
    )
    monkeypatch.setitem(FAMILIES, "third", family)


def test_it_initialises_and_trains() -> None:
    c = config("third", init_std=0.2)
    model = Decoder(c).init_weights(1)
    assert sum(p.numel() for p in model.parameters()) == n_parameters(c)
    assert "blocks.0.attn.q_proj.bias" in parameter_table(c)
    assert "blocks.0.attn.o_proj.bias" not in parameter_table(c)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = model.loss(*batch(c))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("operator", ["masked", "clone"])
@pytest.mark.parametrize("depth", ["masked", "zero_block"])
def test_it_grows_exactly(operator: str, depth: str) -> None:
    c = config("third")
    growth = plan_growth(
        c, everything(c, multiple=operator == "clone"), table(operator=operator, depth=depth)
    )
    old = trained(c)
    result = certificate(growth, old, grown(growth, old))
    require(result)
    assert result["max_dlogit"] <= 1e-10
    assert result["gradient"]["max_error"] <= 1e-12
