"""The small models that the tests ask, with a tokenizer of bytes."""

from __future__ import annotations

from functools import cache

import torch

from growlm.convert.companions import companions_for
from growlm.data.tokenizer import Tokenizer
from growlm.inference.local import Local
from growlm.inference.text import Text
from growlm.model.decoder import Decoder
from growlm.model.masks import Ramp
from growlm.recipe.shape import ModelConfig
from tests.model.tiny import config, decoder, trained

FAMILIES = ("flm", "llama", "qwen2", "qwen3", "gpt2", "neox", "opt")
RAMP = Ramp(10, {"d_model": ((12, 16),), "q": ((8, 16),), "ffn": ((20, 24),), "vocab": ((40, 50),)}, (1,))


def model(family: str, *, ramp: bool = False, c: ModelConfig | None = None) -> Decoder:
    """A model in fp64 with nothing special about its weights, or in the middle of a ramp."""
    c = c or config(family)
    found = decoder(c, trained(c)).eval()
    found.set_mask(RAMP if ramp else None, 0.5)
    return found


@cache
def tokenizer() -> Tokenizer:
    """Bytes and some merges of English."""
    return Tokenizer.train(["the cat sat on the mat, and the dog ran to the hat. " * 3], 300)


def local(family: str = "llama", *, context: int = 32, padding: int = 7) -> Local:
    """A model with a tokenizer, some rows more than that has ids, in fp64."""
    c = config(family, vocab_size=tokenizer().vocab_size + padding)
    files = companions_for(tokenizer(), None)
    return Local(model(family, c=c), Text(files), context=context, identity=f"{family} {context}")


@torch.no_grad()
def greedy(decoder: Decoder, ids: list[int], count: int, known: int) -> list[int]:
    """What a model goes on with, by full forward passes, among its `known` first tokens."""
    ids, start = list(ids), len(ids)
    for _ in range(count):
        ids.append(int(decoder.logits(torch.tensor([ids]))[0, -1, :known].argmax()))
    return ids[start:]
