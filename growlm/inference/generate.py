"""Going on with texts, many at a time or one token after the other, behind a cache of what was read.

The token at position p of a text lies in slot p of the cache, so texts of different lengths are padded at
their ends and the padding is overwritten by what is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from growlm.inference.score import common
from growlm.inference.text import Stream, Text
from growlm.model.decoder import Decoder
from growlm.model.reading import KeyValues, Reading


class Draw:
    """Picks tokens from logits; what one text draws depends on its own seed and on nothing else."""

    def __init__(self, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0, top_k: int = 0) -> None:
        """A `temperature` under 1e-5 is greedy, as in vLLM; `top_k` 0 is no limit."""
        self.temperature = temperature if temperature >= 1e-5 else 0.0  # logits / 1e-310 would be infinite
        self.top_p, self.top_k = top_p, top_k
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, logits: Tensor) -> int:
        """A token of logits (V)."""
        if self.temperature == 0:
            return _likeliest(logits[None])[0]
        likely, ids = (
            (logits.double().cpu() / self.temperature).softmax(-1).sort(descending=True, stable=True)
        )
        if self.top_k:
            likely, ids = likely[: self.top_k], ids[: self.top_k]
        if self.top_p < 1:
            before = likely.cumsum(-1) - likely
            likely = likely[before < self.top_p * likely.sum()]
        return int(ids[torch.multinomial(likely, 1, generator=self._generator)])


class Known:
    """Keeps tokens that mean nothing from being drawn: a vocabulary may be padded, or have holes."""

    def __init__(self, text: Text) -> None:
        self.size, self._holes = text.vocab_size, list(text.holes)

    def of(self, logits: Tensor) -> Tensor:
        """Logits (..., V) of the tokens that there are."""
        logits = logits[..., : self.size]
        return (
            logits.index_fill(-1, torch.tensor(self._holes, device=logits.device), -torch.inf)
            if self._holes
            else logits
        )


@dataclass
class Wanted:
    """A text to go on with: its ids, cut to fit, and when to stop."""

    ids: list[int]
    max_tokens: int
    draw: Draw
    stop: tuple[str, ...] = ()


@dataclass
class Written:
    """What was written so far behind a text."""

    wanted: Wanted
    stream: Stream
    ids: list[int] = field(default_factory=list)
    text: str = ""
    finish: Literal["stop", "length"] | None = None

    def take(self, token: int, ends: frozenset[int]) -> None:
        """Add a token, unless it ends the text; `finish` says whether this was the last."""
        if token in ends:
            self.text += self.stream.finish()
            self.finish = "stop"
        else:
            self.ids.append(token)
            self.text += self.stream.push(token)
            if len(self.ids) >= self.wanted.max_tokens:
                self.text += self.stream.finish()
                self.finish = "length"
        found = first_stop(self.text, self.wanted.stop)
        if found is not None:
            self.text, self.finish = self.text[:found], "stop"


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the first stop begins."""
    return min((at for stop in stops if stop and (at := text.find(stop)) >= 0), default=None)


@torch.inference_mode()
def write(model: Decoder, text: Text, batch: Sequence[Wanted], *, slots: int) -> list[Written]:
    """Go on with some texts together, until each has stopped or has `max_tokens`.

    `slots`: positions that there are, at least those of the longest text with its answer.
    """
    known, rows = Known(text), [Written(wanted, Stream(text)) for wanted in batch]
    lengths = torch.tensor([len(w.ids) for w in batch], device=model.device)
    cache = _cache(model, len(batch), slots)
    logits = known.of(_read_prompts(model, cache, [w.ids for w in batch], lengths))
    alive = list(rows)
    while alive:
        likeliest = _likeliest(logits)
        for i, row in enumerate(alive):
            greedy = row.wanted.draw.temperature == 0
            row.take(likeliest[i] if greedy else row.wanted.draw(logits[i]), text.ends)
        left = [i for i, row in enumerate(alive) if row.finish is None]
        if not left:
            break
        if len(left) < len(alive):
            kept = torch.tensor(left, device=model.device)
            cache.keep(kept)
            lengths, alive = lengths[kept], [alive[i] for i in left]
        tokens = torch.tensor([[row.ids[-1]] for row in alive], device=model.device)
        ends = {len(row.wanted.ids) + len(row.ids) for row in alive}
        longest, seen = max(ends), None
        if len(ends) > 1:
            seen = torch.arange(longest, device=model.device) <= lengths[:, None, None, None]
        start = longest - 1 if seen is None else None
        reading = Reading(lengths[:, None], cache.slots, seen, cache, longest, start=start)
        logits = known.of(model.head_logits(model(tokens, reading=reading))[:, 0])
        lengths = lengths + 1
    return rows


def _cache(model: Decoder, rows: int, slots: int) -> KeyValues:
    dtype = model.compute_dtype or model.embedding.weight.dtype
    return KeyValues(model.config, rows, slots, model.device, dtype)


def _likeliest(logits: Tensor) -> list[int]:
    """The largest of each row of logits (B, V); on a CPU numpy finds it many times as fast."""
    return (logits.numpy() if logits.device.type == "cpu" else logits).argmax(-1).tolist()


def _read_prompts(model: Decoder, cache: KeyValues, prompts: Sequence[list[int]], lengths: Tensor) -> Tensor:
    """Read texts into an empty cache; logits (B, V) behind each."""
    B, T = len(prompts), max(map(len, prompts))
    tokens = torch.zeros(B, T, dtype=torch.long)
    for row, ids in enumerate(prompts):
        tokens[row, : len(ids)] = torch.tensor(ids)
    positions = torch.arange(T, device=model.device).expand(B, -1)
    seen = torch.ones(1, 1, T, T, dtype=torch.bool, device=model.device).tril_()
    hidden = model(tokens.to(model.device), reading=Reading(positions, cache.slots, seen, cache, T, start=0))
    last = hidden[torch.arange(B, device=model.device), lengths - 1]
    return model.head_logits(last[:, None])[:, 0]


@dataclass(frozen=True)
class Token:
    """A token that was written, and how likely it was."""

    id: int
    logprob: float
    top: list[tuple[int, float]]
    """The likeliest tokens there, with their log-probabilities, as many as were asked for."""


class Writer:
    """Goes on with one text at a time, token by token; what the last one had in common is not read again.

    Where a text has used up the context, the model goes on with the last half of that.
    """

    def __init__(self, model: Decoder, text: Text, context: int) -> None:
        self.model, self.context = model, context
        self._known = Known(text)
        self._ends = text.ends
        self._ids: list[int] = []  # what is in the cache
        self._cache: KeyValues | None = None

    def stream(
        self, ids: Sequence[int], draw: Draw, *, max_tokens: int, top: int = 0, ends: bool = True
    ) -> Iterator[Token]:
        """Tokens behind `ids`, of which there is one at least, up to one that ends the text.

        That one is given, too; with `ends` False it is a token like any other.
        """
        ids = list(ids)
        for _ in range(max_tokens):
            if len(ids) > self.context:
                ids = ids[-max(1, self.context // 2) :]
            token = self._token(self.next_logits(ids), draw, top)
            yield token
            if ends and token.id in self._ends:
                return
            ids.append(token.id)

    @torch.inference_mode()
    def next_logits(self, ids: Sequence[int]) -> Tensor:
        """Logits (V) of the tokens that there are behind a text that fits the context."""
        return self._known.of(self.model.head_logits(self._read(ids)[:, -1:])[0, 0])

    @torch.inference_mode()
    def judged(self, ids: Sequence[int], top: int = 0) -> list[Token]:
        """Every token of a text that fits the context but its first, and how likely it was there, of all rows
        of the output matrix, as `score` has it."""
        self._ids = []
        logprobs = self.model.head_logits(self._read(ids))[0, :-1].log_softmax(-1)
        return [_told(self._known.of(row), token, top) for row, token in zip(logprobs, ids[1:], strict=True)]

    def _token(self, logits: Tensor, draw: Draw, top: int) -> Token:
        return _told(logits.log_softmax(-1), draw(logits), top)

    def _read(self, ids: Sequence[int]) -> Tensor:
        """Hidden states (1, T, D) of what is new in a text, at least of its last token."""
        if self._cache is None:
            self._cache = _cache(self.model, 1, self.context)
        old = min(common(self._ids, ids), len(ids) - 1)
        new = torch.tensor([list(ids[old:])], device=self.model.device)
        at = torch.arange(old, len(ids), device=self.model.device)[None]
        seen = None
        if new.shape[1] > 1:
            seen = torch.arange(len(ids), device=self.model.device) <= at[:, None, :, None]
        reading = Reading(at, self.context, seen, self._cache, len(ids), start=old)
        self._ids = self._ids[:old]  # also where Ctrl-C leaves what is new half written
        hidden = self.model(new, reading=reading)
        self._ids = list(ids)
        return hidden


def _told(logprobs: Tensor, token: int, top: int) -> Token:
    values, ids = logprobs.topk(min(top, len(logprobs)))
    return Token(token, logprobs[token].item(), list(zip(ids.tolist(), values.tolist(), strict=True)))
