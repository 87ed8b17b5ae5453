"""What every model in this process does with requests: encode, cut, sort, batch, and count what was cut."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from growlm.inference.generate import Draw, Wanted, Written
from growlm.inference.halving import in_halves
from growlm.inference.requests import Choice, Completion, Failed, Likelihood, Prompt
from growlm.inference.score import Asked, Found
from growlm.inference.text import Text

SPARE = 16
"""Tokens that an answer may be longer than what is expected."""
SWALLOWED = "the tokenizer merges the continuation into the context: no token is its own"


class Asking(ABC):
    """A `Model` around ids: what is below says how likely they are, and goes on with them."""

    rows: int
    """Texts that are written together."""

    def __init__(self, text: Text, *, context: int, identity: str) -> None:
        self.text, self.context, self.identity = text, context, identity

    @abstractmethod
    def score(self, asked: Sequence[Asked]) -> Iterator[tuple[int, Found]]:
        """How likely ids are that fit the context, each with its index, in any order."""

    @abstractmethod
    def write(self, batch: Sequence[Wanted]) -> list[Written]:
        """Go on with texts that fit the context together with what is wanted, all at once."""

    def likelihoods(self, requests: Sequence[Choice]) -> Iterator[tuple[int, Likelihood | Failed]]:
        """How likely each continuation is."""
        pairs = self.text.pairs([r.context for r in requests], [r.continuation for r in requests])
        asked, index_of, cuts = [], [], []
        for index, (context, continuation) in enumerate(pairs):
            scored = len(continuation)
            if scored > self.context:
                yield index, Failed(f"the continuation has {scored} tokens, the context holds {self.context}")
            elif scored == 0 and requests[index].continuation:
                yield index, Failed(SWALLOWED)
            elif scored == 0:
                yield index, Likelihood(0.0, True, 0)
            else:
                ids = context + continuation
                asked.append(Asked(ids[-self.context - 1 :], scored))
                index_of.append(index)
                cuts.append(len(ids) - len(asked[-1].ids))
        for at, found in self.score(asked):
            yield index_of[at], Likelihood(found.logprob, found.greedy, asked[at].scored, cuts[at])

    def rolling(self, texts: Sequence[str]) -> Iterator[tuple[int, Likelihood | Failed]]:
        """How likely whole texts are: each token once, given as many before it as its window has."""
        asked, text_of = [], []
        for index, ids in enumerate(self.text.encode_all(texts)):
            asked += windows(ids, self.text.prefix_id, self.context)
            text_of += [index] * (len(asked) - len(text_of))
        found = dict(self.score(asked))
        logprobs, greedy, counts = [0.0] * len(texts), [True] * len(texts), [0] * len(texts)
        for at, index in enumerate(text_of):
            logprobs[index] += found[at].logprob
            greedy[index] &= found[at].greedy
            counts[index] += asked[at].scored
        for index, told in enumerate(zip(logprobs, greedy, counts, strict=True)):
            yield index, Likelihood(*told)

    def completions(self, requests: Sequence[Prompt]) -> Iterator[tuple[int, Completion | Failed]]:
        """How the model goes on with each text."""
        prompts = self.text.prompts([r.text for r in requests])
        expected = self.text.encode_all([r.expected for r in requests], frame=False)
        wanted = [self._wanted(*each) for each in zip(prompts, requests, expected, strict=True)]
        cuts = [len(ids) - len(one.ids) for ids, one in zip(prompts, wanted, strict=True)]
        for i, one in enumerate(wanted):
            if one.max_tokens == 0:
                yield i, Completion("", 0, "length", cuts[i])
        order = [i for i, one in enumerate(wanted) if one.max_tokens]
        order.sort(key=lambda i: (-len(wanted[i].ids), -wanted[i].max_tokens))

        def write(part: Sequence[int]) -> list[tuple[int, Written]]:
            return list(zip(part, self.write([wanted[i] for i in part]), strict=True))

        for start in range(0, len(order), self.rows):
            for i, written in in_halves(write, order[start : start + self.rows]):
                assert written.finish is not None
                yield i, Completion(written.text, len(written.ids), written.finish, cuts[i])

    def _wanted(self, ids: list[int], request: Prompt, expected: list[int]) -> Wanted:
        """A text cut at its beginning so that what is expected fits, or else `max_tokens`; or, where that
        alone fills the context, to half of it."""
        needed = min(request.max_tokens, len(expected) + SPARE) if expected else request.max_tokens
        room = self.context - needed
        kept = ids[-(room if room > 0 else (self.context + 1) // 2) :]
        most = min(request.max_tokens, self.context - len(kept))
        return Wanted(kept, most, Draw(request.temperature, request.top_p, request.seed), request.stop)


def windows(ids: Sequence[int], prefix: int, context: int) -> list[Asked]:
    """A text in windows of at most `context` inputs, behind a prefix; all but the first are full.

    They are those of lm-evaluation-harness (`get_rolling_token_windows` with one token of context).
    """
    whole, found = [prefix, *ids], []
    for start in range(0, len(ids), context):
        end = min(start + context, len(ids))
        found.append(Asked(whole[max(0, end - context) : end + 1], end - start))
    return found
