"""Documents that are kept apart give the logits that each of them has alone."""

from __future__ import annotations

import pytest
import torch

from growlm.recipe.families import FAMILIES
from tests.model.tiny import config, decoder, trained

END = 1
LENGTHS = (5, 1, 9, 4)
ROTARY = [name for name, family in FAMILIES.items() if family.position != "learned"]


def documents(seed: int) -> list[torch.Tensor]:
    """Token ids of some documents, each with its end; the last one goes on beyond the sequence."""
    generator = torch.Generator().manual_seed(seed)
    texts = [torch.randint(2, 12, (length,), generator=generator) for length in LENGTHS]
    return [torch.cat((text, torch.tensor([END]))) for text in texts[:-1]] + [texts[-1]]


@pytest.mark.parametrize("family", ROTARY)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_apart_is_alone(family: str, kv_heads: int) -> None:
    c = config(family, n_kv_heads=kv_heads, vocab_size=12)
    model = decoder(c, trained(c, dtype=torch.float64))
    rows = [documents(seed) for seed in (1, 2)]
    packed = torch.stack([torch.cat(row) for row in rows])
    model.document_end = END
    together = model.logits(packed)
    model.document_end = None
    for row, found in zip(rows, together, strict=True):
        alone = torch.cat([model.logits(text[None])[0] for text in row])
        torch.testing.assert_close(found, alone, rtol=0, atol=1e-10)
    assert not torch.allclose(together, model.logits(packed), atol=1e-4)


def test_one_document_is_a_sequence_without_a_mask() -> None:
    c = config("llama", vocab_size=12)
    model = decoder(c, trained(c, dtype=torch.float64))
    tokens = torch.randint(2, 12, (2, 17), generator=torch.Generator().manual_seed(0))
    plain = model.loss(tokens, tokens)
    model.document_end = END
    torch.testing.assert_close(model.loss(tokens, tokens), plain, rtol=0, atol=1e-12)
