"""Reading behind a cache, or as a tree, is the full forward pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from growlm.model.decoder import Decoder
from growlm.model.reading import KeyValues, Reading, behind
from growlm.recipe.shape import ModelConfig
from tests.model.tiny import config, trained

FAMILIES = ("flm", "llama", "qwen2", "qwen3", "gpt2", "neox", "opt")


def model(family: str) -> Decoder:
    c = config(family)
    decoder = Decoder(c).double().eval()
    decoder.load_state_dict(trained(c))
    return decoder


def tokens_of(c: ModelConfig, rows: int, length: int) -> Tensor:
    return torch.randint(0, c.vocab_size, (rows, length), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_tokens_behind_a_cache_are_the_full_pass(family: str) -> None:
    decoder = model(family)
    tokens = tokens_of(decoder.config, 3, 20)
    lengths = torch.tensor([5, 9, 1])  # of what each row has read before
    cache = KeyValues(decoder.config, 3, 24, decoder.device, torch.float64)
    padded = torch.where(torch.arange(9) < lengths[:, None], tokens[:, :9], 0)
    decoder(padded, reading=behind(cache, torch.arange(9).expand(3, -1)))
    for step in range(8):
        at = lengths + step
        hidden = decoder(tokens.gather(1, at[:, None]), reading=behind(cache, at[:, None]))
        for row in range(3):
            full = decoder(tokens[row : row + 1, : int(at[row]) + 1])
            assert torch.allclose(hidden[row, 0], full[0, -1], atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_rows_that_go_together_and_rows_that_are_left_out(family: str) -> None:
    decoder = model(family)
    tokens = tokens_of(decoder.config, 3, 12)
    cache = KeyValues(decoder.config, 3, 12, decoder.device, torch.float64)
    decoder(tokens[:, :7], reading=behind(cache, torch.arange(7).expand(3, -1)))
    rows = torch.tensor([2, 0])
    cache.keep(rows)
    for at in range(7, 12):
        where = torch.full((2, 1), at)
        hidden = decoder(tokens[rows, at : at + 1], reading=behind(cache, where, together=True))
        assert torch.allclose(hidden[:, 0], decoder(tokens[rows, : at + 1])[:, -1], atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_tree_is_its_texts(family: str) -> None:
    """A beginning of 6 tokens and two ends of 3 and 4, in one row."""
    decoder = model(family)
    tokens = tokens_of(decoder.config, 1, 13)
    first = torch.cat((tokens[:, :6], tokens[:, 6:9]), 1)
    second = torch.cat((tokens[:, :6], tokens[:, 9:]), 1)
    positions = torch.tensor([[*range(6), 6, 7, 8, 6, 7, 8, 9]])
    seen = torch.ones(13, 13, dtype=torch.bool).tril()
    seen[9:, 6:9] = False
    hidden = decoder(tokens, reading=Reading(positions, 10, seen[None, None]))
    assert torch.allclose(hidden[:, :9], decoder(first), atol=1e-10)
    assert torch.allclose(hidden[:, 9:], decoder(second)[:, 6:], atol=1e-10)
