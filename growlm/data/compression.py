"""How well a tokenizer compresses: bytes of text per token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from growlm.data.tokenizer import Tokenizer, pieces


class Compression(NamedTuple):
    """Some text under a tokenizer."""

    bytes: int
    tokens: int

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes per token; more is better, for the same text and size of vocabulary."""
        return self.bytes / self.tokens


def compression(tokenizer: Tokenizer, texts: Sequence[str]) -> Compression:
    """UTF-8 bytes and tokens of some texts, not all empty, without ends of documents."""
    parts = [piece for text in texts for piece in pieces(text)]
    tokens = sum(map(len, tokenizer.encode_batch(parts)))
    return Compression(sum(len(text.encode()) for text in texts), tokens)
