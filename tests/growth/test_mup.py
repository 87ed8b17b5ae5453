"""Under muP a model duplicated in every width trains on exactly as the one it came from.

The multipliers of lr, weight decay, epsilon and logits are recomputed from the new width, the moments
grow by the rule; then the two loss curves are one (scaling rules of 2203.03466, AdamW).
"""

from __future__ import annotations

import pytest
import torch

from growlm.growth.operators import plan_growth
from growlm.model.decoder import Decoder
from growlm.model.parameters import parameter_table
from tests.growth.tools import grown, table
from tests.model.tiny import FAMILIES, State, batch, config, decoder


def adamw(model: Decoder) -> torch.optim.AdamW:
    """One group per parameter, with the multipliers of its record."""
    records = parameter_table(model.config)
    groups = [
        {
            "params": [p],
            "name": name,
            "lr": 1e-2 * records[name].lr_mult,
            "weight_decay": 0.1 * records[name].wd_mult,
            "eps": 1e-3 * records[name].eps_mult,
        }
        for name, p in model.named_parameters()
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95))


def train(model: Decoder, optimizer: torch.optim.AdamW, steps: range) -> list[float]:
    losses = []
    for step in steps:
        optimizer.zero_grad()
        loss = model.loss(*batch(model.config, seed=step))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def moments(optimizer: torch.optim.AdamW, key: str) -> State:
    return {g["name"]: optimizer.state[g["params"][0]][key].clone() for g in optimizer.param_groups}


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_duplication_keeps_the_loss_curve(family: str, tied: bool) -> None:
    c = config(family, tied=tied, mup_base_d_model=8, init_std=0.3, logit_mult=0.5)
    old = decoder(c, {n: w.double() for n, w in Decoder(c).init_weights(1).state_dict().items()})
    before = adamw(old)
    train(old, before, range(10))

    wide = c.with_(d_model=48, n_heads=12, n_kv_heads=6, d_ff=72)
    growth = plan_growth(c, wide, table(operator="clone"))
    assert growth.new.logit_mult == c.logit_mult / 3
    new = decoder(growth.new, grown(growth, dict(old.state_dict())))
    after = adamw(new)
    first, second = (grown(growth, moments(before, k), k) for k in ("exp_avg", "exp_avg_sq"))
    for group in after.param_groups:
        name = group["name"]
        after.state[group["params"][0]] = {
            "step": torch.tensor(10.0), "exp_avg": first[name], "exp_avg_sq": second[name],
        }  # fmt: skip

    unchanged = train(old, before, range(10, 40))
    duplicated = train(new, after, range(10, 40))
    assert unchanged[-1] != unchanged[0]
    assert max(abs(a - b) for a, b in zip(unchanged, duplicated, strict=True)) < 1e-9
