"""Initial values belong to rows: any slice can be made without the rest."""

from __future__ import annotations

import pytest
import torch

from growlm.model.decoder import Decoder
from growlm.model.init import init_rows
from growlm.model.parameters import parameter_table
from tests.model.tiny import config

TABLE = parameter_table(config("flm", d_model=256, vocab_size=400, tied=False, mup_base_d_model=64))


@pytest.mark.parametrize(
    "name", ["embedding.weight", "blocks.1.attn.o_proj.weight", "norm.weight", "norm.bias"]
)
def test_a_slice_equals_the_same_rows_of_the_whole(name: str) -> None:
    p = TABLE[name]
    whole = init_rows(p, 7, 0, p.shape[0])
    assert whole.shape == p.shape
    for start, stop in ((0, 1), (3, 11), (5, 5), (p.shape[0] - 4, p.shape[0])):
        assert torch.equal(init_rows(p, 7, start, stop), whole[start:stop])


def test_names_rows_and_seeds_differ() -> None:
    names = [
        "embedding.weight",
        "lm_head.weight",
        "blocks.0.attn.q_proj.weight",
        "blocks.1.attn.q_proj.weight",
    ]
    rows = [init_rows(TABLE[name], seed, 0, 8)[:, :64] / TABLE[name].std for name in names for seed in (1, 2)]
    together = torch.cat(rows)
    similarity = torch.corrcoef(together) - torch.eye(len(together))
    assert similarity.abs().max() < 0.6  # 64 numbers per row: 4.8 sigma


@pytest.mark.parametrize(
    "name", ["embedding.weight", "blocks.0.mlp.up_proj.weight", "blocks.0.mlp.down_proj.weight"]
)
def test_standard_deviation_is_the_record_s(name: str) -> None:
    p = TABLE[name]
    values = init_rows(p, 0, 0, p.shape[0])
    sigma_of_estimate = 5 / (2 * p.numel) ** 0.5
    assert abs(values.std().item() / p.std - 1) < sigma_of_estimate
    assert abs(values.mean().item() / p.std) < 5 / p.numel**0.5


def test_the_decoder_is_filled_by_the_table() -> None:
    c = config("flm")
    model, again = Decoder(c).init_weights(3), Decoder(c).init_weights(3)
    for name, p in model.named_parameters():
        record = parameter_table(c)[name]
        assert torch.equal(p, init_rows(record, 3, 0, record.shape[0]))
        assert torch.equal(p, dict(again.named_parameters())[name])
    assert (model.norm.weight == 1).all()
    assert model.norm.bias is not None
    assert not model.norm.bias.any()
