"""A model of ours in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from growlm.inference.asking import Asking
from growlm.inference.generate import Wanted, Writer, Written, write
from growlm.inference.score import Asked, Found, score
from growlm.inference.text import Text
from growlm.model.decoder import Decoder

BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}
"""Read together, padding included."""
ROWS = {"cpu": 16, "cuda": 64}
"""Texts that are written together."""


class Local(Asking):
    """A decoder with its tokenizer; a `Model`."""

    def __init__(self, decoder: Decoder, text: Text, *, context: int, identity: str) -> None:
        super().__init__(text, context=context, identity=identity)
        self.decoder = decoder
        self.rows = ROWS[decoder.device.type]

    def writer(self) -> Writer:
        """To go on with one text at a time, token by token."""
        return Writer(self.decoder, self.text, self.context)

    def score(self, asked: Sequence[Asked]) -> Iterator[tuple[int, Found]]:
        """How likely ids are, in trees."""
        budget = BATCH_TOKENS[self.decoder.device.type]
        return score(self.decoder, asked, context=self.context, batch_tokens=budget)

    def write(self, batch: Sequence[Wanted]) -> list[Written]:
        """Go on with texts behind one cache."""
        return write(self.decoder, self.text, batch, slots=max(len(w.ids) + w.max_tokens for w in batch))
