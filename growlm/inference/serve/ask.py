"""What may be asked of `/v1/completions`: JSON as OpenAI defines it, checked key by key."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from growlm.inference.text import Text

MOST_TEXTS = 128
"""Prompts times `n` of one request."""
MOST_LOGPROBS = 20
_MOST_STOPS = 16
_LONGEST_STOP = 1000
_DEFAULT_TOKENS = 16
_LEAST_SHARE = 1e-9  # of the likelihood: 0 means the likeliest token
_IGNORED = {"user", "metadata", "store", "service_tier"}
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "suffix": ("",),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "min_p": (0,),
}
"""What is not done, and the values that ask for nothing."""


class Refused(Exception):  # noqa: N818  (an answer, with OpenAI's words)
    """A request that gets an error: HTTP status, and OpenAI's `message`, `type`, `param` and `code`."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        kind = "server_error" if status >= 500 else "invalid_request_error"
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True)
class Prompted:
    """One text to go on with, and how it was given."""

    ids: list[int]
    text: str | None
    """None: it was given as ids."""


@dataclass(frozen=True)
class Ask:
    """One checked request."""

    prompts: list[Prompted]
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    stop: tuple[str, ...]
    n: int
    logprobs: int | None
    echo: bool
    stream: bool
    stream_usage: bool


def parse(body: Any, text: Text, *, model: str, context: int, most_tokens: int) -> Ask:
    """The request in a JSON value, for a model of that name, context and limit. Raises Refused."""
    if not isinstance(body, dict):
        raise Refused(400, "The body must be a JSON object.")
    read = _Reader(body)
    asked = read.one("model", lambda v: isinstance(v, str), "a text", model)
    if asked != model:
        why = f"The model {asked[:100]!r} does not exist; this server has {model!r}."
        raise Refused(404, why, param="model", code="model_not_found")
    prompts = _prompts(read.take("prompt"), text)
    options = read.one("stream_options", lambda v: isinstance(v, dict), "an object", {})
    seed = read.one("seed", _whole(-(1 << 63), 1 << 63), "a whole number", None)
    ask = Ask(
        prompts=prompts,
        max_tokens=_max_tokens(read, prompts, context, most_tokens),
        temperature=float(read.one("temperature", _number(0, 100), "a number from 0", 1)),
        top_p=max(_LEAST_SHARE, read.one("top_p", _number(0, 1), "a number from 0 to 1", 1)),
        top_k=max(0, read.one("top_k", _whole(-1, 1 << 31), "a whole number", 0)),
        seed=secrets.randbits(31) if seed is None else seed,
        stop=_stops(read.take("stop")),
        n=read.one("n", _whole(1, MOST_TEXTS + 1), f"a whole number from 1 to {MOST_TEXTS}", 1),
        logprobs=read.one("logprobs", _whole(0, MOST_LOGPROBS + 1), f"up to {MOST_LOGPROBS}", None),
        echo=read.one("echo", _is_bool, "true or false", False),
        stream=read.one("stream", _is_bool, "true or false", False),
        stream_usage=options.get("include_usage") is True,
    )  # fmt: skip
    if len(prompts) * ask.n > MOST_TEXTS:
        raise Refused(
            400, f"{len(prompts)} prompts times n = {ask.n}: at most {MOST_TEXTS} together.", param="n"
        )
    read.nothing_left()
    return ask


class _Reader:
    """Takes values out of a request; null is as if a key were not there."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._left = {key: value for key, value in body.items() if value is not None}

    def take(self, key: str) -> Any:
        return self._left.pop(key, None)

    def one(self, key: str, good: Callable[[Any], bool], kind: str, default: Any) -> Any:
        if key not in self._left:
            return default
        value = self.take(key)
        if not good(value):
            raise Refused(400, f"{key} must be {kind}.", param=key)
        return value

    def nothing_left(self) -> None:
        """Raise Refused for what this server does not do, rather than do something else."""
        for key, value in self._left.items():
            if key in _NEUTRAL and value not in _NEUTRAL[key]:
                raise Refused(400, f"This server does not support {key}.", param=key)
            if key not in _NEUTRAL and key not in _IGNORED:
                raise Refused(400, f"Unrecognized request argument: {key[:100]}", param=key[:100])


def _prompts(given: Any, text: Text) -> list[Prompted]:
    """A text, ids, or a list of either. Raises Refused."""
    if isinstance(given, list) and given and not all(type(item) is int for item in given):
        return [_prompt(item, text) for item in given[: MOST_TEXTS + 1]]
    return [_prompt("" if given is None else given, text)]


def _prompt(given: Any, text: Text) -> Prompted:
    if isinstance(given, str):
        try:
            return Prompted(text.prompts([given])[0], given)
        except TypeError:  # as the tokenizer says it
            raise Refused(400, "prompt holds half of a surrogate pair.", param="prompt") from None
    if not isinstance(given, list) or not given or any(type(i) is not int for i in given):
        raise Refused(400, "prompt must be a text, a list of token ids, or a list of these.", param="prompt")
    if not all(0 <= i < text.vocab_size for i in given):
        raise Refused(400, f"prompt holds an id outside of 0 to {text.vocab_size - 1}.", param="prompt")
    return Prompted(given, None)


def _max_tokens(read: _Reader, prompts: list[Prompted], context: int, most: int) -> int:
    """How many to write; raises Refused unless that fits behind every prompt."""
    longest = max(len(prompt.ids) for prompt in prompts)
    wanted = read.one("max_tokens", _whole(0, 1 << 31), "a whole number", None)
    if wanted is not None and wanted > most:
        raise Refused(
            400, f"max_tokens is {wanted}, and this server writes at most {most}.", param="max_tokens"
        )
    if longest + (wanted or 0) > context or (wanted is None and longest >= context):
        raise Refused(
            400,
            f"This model's maximum context length is {context} tokens; you asked for {longest} in the prompt"
            f" and {_DEFAULT_TOKENS if wanted is None else wanted} for the completion.",
            param="prompt",
            code="context_length_exceeded",
        )
    return min(_DEFAULT_TOKENS, context - longest, most) if wanted is None else wanted


def _stops(given: Any) -> tuple[str, ...]:
    stops = given if isinstance(given, list) else [] if given is None else [given]
    good = all(isinstance(stop, str) and 0 < len(stop) <= _LONGEST_STOP for stop in stops)
    if not good or len(stops) > _MOST_STOPS:
        raise Refused(
            400, f"stop must be a text or up to {_MOST_STOPS} of them, none of them empty.", param="stop"
        )
    return tuple(stops)


def _whole(least: int, end: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value < end


def _number(least: float, most: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and least <= value <= most


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)
