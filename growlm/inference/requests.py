"""What can be asked of a model, and what it answers; every evaluation is made of these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Choice:
    """How likely is this continuation of this context?"""

    context: str
    continuation: str


@dataclass(frozen=True)
class Prompt:
    """Go on with this text, at most `max_tokens`, up to the first of `stop`; temperature 0 is greedy."""

    text: str
    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    expected: str = ""
    """An answer that there must be room for; without it for `max_tokens`. Never shown to a model."""


@dataclass(frozen=True)
class Likelihood:
    """Of a `Choice`."""

    logprob: float
    """Sum over the tokens of the continuation, in nats."""
    greedy: bool
    """Whether each of them was the likeliest."""
    tokens: int
    cut: int = 0
    """Tokens of the context that did not fit and were left out, at its beginning."""


@dataclass(frozen=True)
class Completion:
    """Of a `Prompt`, without the stop that ended it."""

    text: str
    tokens: int
    finish: Literal["stop", "length"]
    """`stop`: a stop or the end of the text; `length`: `max_tokens` or the context were used up."""
    cut: int = 0


@dataclass(frozen=True)
class Failed:
    """Of a request that could not be answered, after all retries."""

    why: str


class Model(Protocol):
    """Answers requests in the order that suits it: pairs of the request's index and its answer."""

    @property
    def identity(self) -> str:
        """The same for the same weights, tokenizer, precision and context, and for nothing else."""
        ...

    @property
    def context(self) -> int:
        """Tokens of a request and its answer that fit."""
        ...

    def likelihoods(self, requests: Sequence[Choice]) -> Iterator[tuple[int, Likelihood | Failed]]:
        """How likely each continuation is."""
        ...

    def completions(self, requests: Sequence[Prompt]) -> Iterator[tuple[int, Completion | Failed]]:
        """How the model goes on with each text."""
        ...
