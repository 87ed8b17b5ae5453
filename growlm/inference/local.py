"""A model of ours in this process, as everything that asks a model sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from growlm.inference.generate import Draw, Wanted, Writer, Written, write
from growlm.inference.halving import in_halves
from growlm.inference.requests import Choice, Completion, Failed, Likelihood, Prompt
from growlm.inference.score import BATCH_TOKENS, Asked, score
from growlm.inference.text import Text
from growlm.model.decoder import Decoder

ROWS = {"cpu": 16, "cuda": 64}
"""Texts that are written together."""


class Local:
    """A decoder with its tokenizer; a `Model`."""

    def __init__(self, decoder: Decoder, text: Text, *, context: int, identity: str) -> None:
        self.decoder, self.text = decoder.eval().requires_grad_(False), text
        self.context, self.identity = context, identity

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.decoder.device

    def writer(self) -> Writer:
        """To go on with one text at a time, token by token."""
        return Writer(self.decoder, self.text, self.context)

    def likelihoods(self, requests: Sequence[Choice]) -> Iterator[tuple[int, Likelihood | Failed]]:
        """How likely each continuation is."""
        pairs = self.text.pairs([r.context for r in requests], [r.continuation for r in requests])
        return self.judge([(pair.context + pair.continuation, len(pair.continuation)) for pair in pairs])

    def judge(self, texts: Sequence[tuple[list[int], int]]) -> Iterator[tuple[int, Likelihood | Failed]]:
        """The same of ids, of each text how many of the last."""
        asked, index_of, cuts = [], [], []
        for index, (ids, scored) in enumerate(texts):
            if scored > self.context:
                yield index, Failed(f"the continuation has {scored} tokens, the context holds {self.context}")
            elif scored == 0:
                yield index, Likelihood(0.0, True, 0)
            else:
                asked.append(Asked(ids[-self.context - 1 :], scored))
                index_of.append(index)
                cuts.append(len(ids) - len(asked[-1].ids))
        budget = BATCH_TOKENS[self.device.type]
        for at, found in score(self.decoder, asked, context=self.context, batch_tokens=budget):
            yield index_of[at], Likelihood(found.logprob, found.greedy, asked[at].scored, cuts[at])

    def completions(self, requests: Sequence[Prompt]) -> Iterator[tuple[int, Completion | Failed]]:
        """How the model goes on with each text."""
        wanted = [
            self._wanted(ids, r)
            for ids, r in zip(self.text.prompts([r.text for r in requests]), requests, strict=True)
        ]
        order = sorted(range(len(wanted)), key=lambda i: -len(wanted[i][0].ids))
        rows = ROWS[self.device.type]
        for start in range(0, len(order), rows):
            yield from in_halves(lambda part: self._write(part, wanted), order[start : start + rows])

    def _write(
        self, part: Sequence[int], wanted: Sequence[tuple[Wanted, int]]
    ) -> list[tuple[int, Completion | Failed]]:
        batch = [wanted[i][0] for i in part]
        found = write(self.decoder, self.text, batch, slots=max(len(w.ids) + w.max_tokens for w in batch))
        return [(i, _completion(w, wanted[i][1])) for i, w in zip(part, found, strict=True)]

    def _wanted(self, ids: list[int], request: Prompt) -> tuple[Wanted, int]:
        """A text and how much of it had to be cut so that the answer fits: where that is longer than the
        context, half of that is the text's."""
        room = self.context - request.max_tokens
        room = room if room > 0 else (self.context + 1) // 2
        kept = ids[-room:]
        most = min(request.max_tokens, self.context - len(kept))
        draw = Draw(request.temperature, request.top_p, request.seed)
        return Wanted(kept, most, draw, request.stop), len(ids) - len(kept)


def _completion(written: Written, cut: int) -> Completion:
    assert written.finish is not None
    return Completion(written.text, len(written.ids), written.finish, cut)
