"""Counted FLOPs are those that torch counts, for every family."""

from __future__ import annotations

import pytest
from torch.utils.flop_counter import FlopCounterMode

from growlm.plan.flops import flops_per_token
from tests.model.tiny import FAMILIES, IMPORTED, batch, config, decoder


@pytest.mark.parametrize("n_layers", [0, 2])
@pytest.mark.parametrize(("family", "tied"), FAMILIES + IMPORTED)
def test_equal_three_forward_passes(family: str, tied: bool, n_layers: int) -> None:
    c = config(family, tied=tied, n_layers=n_layers)
    tokens, _ = batch(c)
    with FlopCounterMode(display=False) as counter:
        decoder(c).logits(tokens)
    assert flops_per_token(c, tokens.shape[1]) * tokens.numel() == 3 * counter.get_total_flops()
