"""A model under training, as evaluations want it.

Where one rank has all of it, its decoder is asked like any other model, behind a cache. Over several ranks
the engine answers, on all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from growlm.convert.companions import companions_for
from growlm.data.tokenizer import Tokenizer
from growlm.inference.asking import Asking
from growlm.inference.generate import Wanted, Written
from growlm.inference.local import Local
from growlm.inference.score import Asked, Found
from growlm.inference.text import Stream, Text
from growlm.parallel.engine import Engine

BATCH_TOKENS = {"cpu": 4096, "cuda": 32768}
"""Read together by a rank, padding included."""


Turn = Callable[[], None]
"""Called between batches, at least once for each; what it raises ends the asking."""


def model_of(engine: Engine, tokenizer: Tokenizer, context: int, turn: Turn = lambda: None) -> Asking:
    """The model that an engine trains, as it is now, masks included. Every call of it is a collective."""
    kind = OwnModel if engine.layout.world == 1 else EngineModel
    return kind(engine, tokenizer, context, turn)


class OwnModel(Local):
    """All of it on this rank: its weights, in the precision of the training."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, context: int, turn: Turn) -> None:
        text = Text(companions_for(tokenizer, context))
        super().__init__(engine.model, text, context=context, identity="in training")
        self._turn = turn

    def score(self, asked: Sequence[Asked]) -> Iterator[tuple[int, Found]]:
        """How likely ids are, in trees."""
        for found in super().score(asked):
            self._turn()
            yield found

    def write(self, batch: Sequence[Wanted]) -> list[Written]:
        """Go on with texts behind one cache."""
        self._turn()
        return super().write(batch)


class EngineModel(Asking):
    """Its parts on several ranks. It writes greedily only."""

    rows = 64

    def __init__(self, engine: Engine, tokenizer: Tokenizer, context: int, turn: Turn = lambda: None) -> None:
        super().__init__(Text(companions_for(tokenizer, context)), context=context, identity="in training")
        self._engine, self._turn = engine, turn

    def score(self, asked: Sequence[Asked]) -> Iterator[tuple[int, Found]]:
        """How likely ids are."""
        for part in self._batches([len(one.ids) - 1 for one in asked]):
            some = [asked[i] for i in part]
            told = self._told(
                [one.ids[:-1] for one in some], [one.ids[1:] for one in some], [one.scored for one in some]
            )
            for i, one, (losses, likeliest) in zip(part, some, told, strict=True):
                yield i, Found(-sum(losses), likeliest == one.ids[-one.scored :])

    def write(self, batch: Sequence[Wanted]) -> list[Written]:
        """Go on with texts, each time reading them anew: there is no cache over a divided model."""
        rows = [Written(wanted, Stream(self.text)) for wanted in batch]
        alive = list(rows)
        while alive:
            texts = [row.wanted.ids + row.ids for row in alive]
            for part in self._batches([len(ids) for ids in texts]):
                some = [texts[i] for i in part]
                for i, (_, likeliest) in zip(part, self._told(some, some, [1] * len(some)), strict=True):
                    alive[i].take(likeliest[0], self.text.ends)
            alive = [row for row in alive if row.finish is None]
        return rows

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Indices of texts to be read together, about as long as one another, the longest first."""
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        while order:
            count = self._rows(lengths[order[0]]) * self._engine.layout.dp
            yield order[:count]
            order = order[count:]

    def _rows(self, length: int) -> int:
        """Texts of a length that a rank reads together."""
        return max(1, BATCH_TOKENS[self._engine.device.type] // length)

    def _told(
        self, inputs: Sequence[list[int]], targets: Sequence[list[int]], scored: Sequence[int]
    ) -> Iterator[tuple[list[float], list[int]]]:
        """Of each text the losses of its last `scored` targets, and the likeliest ids in their places."""
        self._turn()
        longest = max(map(len, inputs))
        length = longest + -longest % self._engine.layout.tp  # sequence parallelism divides it
        x, y = (torch.tensor([ids + [0] * (length - len(ids)) for ids in some]) for some in (inputs, targets))
        ends = torch.tensor([len(ids) for ids in inputs])[:, None]
        at = torch.arange(length)[None]
        wanted = (at < ends) & (at >= ends - torch.tensor(scored)[:, None])
        place = self._engine.device
        found = self._engine.token_scores(
            x.to(place), y.to(place), wanted.to(place), self._rows(longest), self.text.vocab_size
        ).cpu()
        for row, mine in zip(found, wanted, strict=True):
            losses, likeliest = row[mine].unbind(1)
            yield losses.tolist(), [int(i) for i in likeliest]
