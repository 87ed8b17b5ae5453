"""From a request to what is written, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from growlm.inference.generate import Draw, Token, Writer
from growlm.inference.serve.ask import Ask, Prompted
from growlm.inference.steps import steps
from growlm.inference.text import Stream, Text

_LEAST = -9999.0  # JSON has no infinity


@dataclass
class Piece:
    """More of the text of a choice."""

    index: int
    text: str = ""
    logprobs: dict[str, list[Any]] | None = None
    """OpenAI's columns tokens, token_logprobs, top_logprobs, text_offset of its tokens."""
    finish: Literal["stop", "length"] | None = None
    tokens: int = 0
    """That were written for it."""


def complete(writer: Writer, text: Text, ask: Ask) -> Iterator[Piece]:
    """All choices one after the other: those of the first prompt, then those of the next."""
    for number, prompt in enumerate(ask.prompts):
        for i in range(ask.n):
            yield from _Choice(writer, text, ask, prompt, number * ask.n + i, ask.seed + i).pieces()


@dataclass
class _Choice:
    writer: Writer
    text: Text
    ask: Ask
    prompt: Prompted
    index: int
    seed: int
    offset: int = 0
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def pieces(self) -> Iterator[Piece]:
        ask = self.ask
        self._clear()
        if ask.echo:
            yield self._echoed()
        draw, top = Draw(ask.temperature, ask.top_p, self.seed, ask.top_k), ask.logprobs or 0
        written = steps(
            self.writer, self.text, self.prompt.ids, draw, max_tokens=ask.max_tokens, stop=ask.stop, top=top
        )
        for step in written:
            if step.token is not None:
                self._remember(step.token, self.offset)
            self.offset += len(step.new)
            yield Piece(self.index, step.sure, self._taken(), step.finish, int(step.token is not None))

    def _echoed(self) -> Piece:
        """The prompt itself, with its likelihoods if they are wanted."""
        ids, stream = self.prompt.ids, Stream(self.text)
        judged: list[Token | None] = [None]
        if self.ask.logprobs is not None:
            judged += self.writer.judged(ids, self.ask.logprobs)
        said = ""
        for position, id_ in enumerate(ids):
            if self.ask.logprobs is not None:
                self._remember(judged[position] or id_, len(said))
            said += stream.push(id_)
        said += stream.finish()
        given = said if self.prompt.text is None else self.prompt.text
        self.offset = len(given)
        return Piece(self.index, given, self._taken())

    def _remember(self, token: Token | int, offset: int) -> None:
        """Add to the columns; of a text's first token, an id, the likelihood is not known."""
        if self.ask.logprobs is None:
            return
        known = isinstance(token, Token)
        self.columns["tokens"].append(self.text.name_of(token.id if known else token))
        self.columns["token_logprobs"].append(_finite(token.logprob) if known else None)
        self.columns["top_logprobs"].append(self._tops(token) if known else None)
        self.columns["text_offset"].append(offset)

    def _tops(self, token: Token) -> dict[str, float]:
        """The likeliest, by name, with the one that is there; of two of the same name the likelier."""
        found: dict[str, float] = {}
        for id_, logprob in [*token.top, (token.id, token.logprob)]:
            found.setdefault(self.text.name_of(id_), _finite(logprob))
        return found

    def _taken(self) -> dict[str, list[Any]] | None:
        taken = None if self.ask.logprobs is None else self.columns
        self._clear()
        return taken

    def _clear(self) -> None:
        self.columns = {key: [] for key in ("tokens", "token_logprobs", "top_logprobs", "text_offset")}


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST)
