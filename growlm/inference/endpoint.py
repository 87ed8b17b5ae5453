"""A model behind a server of OpenAI-compatible completions. Only a server that the user names is asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, TypeGuard, TypeVar
from urllib.parse import urldefrag

from growlm.errors import EndpointError, RecipeError
from growlm.inference.client import Client, Unanswered
from growlm.inference.requests import Choice, Completion, Failed, Likelihood, Prompt

_Request = TypeVar("_Request", Choice, Prompt)
_Answer = TypeVar("_Answer", Likelihood, Completion)
_PROBE = Choice("The river runs", " to the sea.")
_MOST_STOPS = 4  # OpenAI's own limit; a text is cut at the others here
IDENTITY_KEY = "growlm_identity"
"""Where `growlm serve` says which model stands behind the name."""
_CONTEXT_KEYS = ("max_model_len", "context_length", "context_window")


class Endpoint:
    """The model `name`, or the only one, of the server at `url` (`http://HOST:PORT/v1`, or with `#NAME`).

    Up to `threads` requests are under way at once. How often they are tried, and with which key, is said
    in `Client`. The server counts tokens: what does not fit is Failed, never cut. Raises EndpointError if
    nobody answers or the model is not there, RecipeError for an address that is none, or if neither the
    server nor `context` says how many tokens fit.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str | None = None,
        context: int | None = None,
        threads: int = 8,
        client: Callable[[str], Client] = Client,
    ) -> None:
        address, fragment = urldefrag(url)
        self._client = client(address.rstrip("/").removesuffix("/completions"))
        self._threads = threads
        self._name, said, self._behind = self._model(name or fragment or None)
        if said is None and context is None:
            raise RecipeError(
                "The server does not say how many tokens its model takes",
                where=f"{self._client.url}/models",
                fix="say it: --context 2048",
            )
        self._context = min(n for n in (said, context) if n is not None)
        self._probing = Lock()
        self._no_likelihoods: str | None = None

    @property
    def identity(self) -> str:
        """The address and the name of the model, and what `growlm serve` says of what stands behind them."""
        return f"endpoint {self._client.url}#{self._name}{self._behind and ' '}{self._behind}"

    @property
    def context(self) -> int:
        """Tokens that fit, as the server or the user says."""
        return self._context

    def likelihoods(self, requests: Sequence[Choice]) -> Iterator[tuple[int, Likelihood | Failed]]:
        """Each by one prompt that is echoed with log-probabilities; all Failed if the server does not.

        White space between the two texts counts to the continuation. Raises EndpointError.
        """
        return self._each(requests, self._likelihood)

    def completions(self, requests: Sequence[Prompt]) -> Iterator[tuple[int, Completion | Failed]]:
        """How the server's model goes on with each text. Raises EndpointError."""
        return self._each(requests, self._completion)

    def _model(self, name: str | None) -> tuple[str, int | None, str]:
        """The name of the model; how many tokens it takes, and its identity, if the server says so."""
        try:
            listed = self._client.get("/models").get("data")
        except Unanswered as error:
            if name:
                return name, None, ""
            raise RecipeError(
                "The server does not say which models it has",
                where=f"{self._client.url}/models",
                why=str(error),
                fix=f"name one, and say how many tokens it takes: {self._client.url}#MODEL --context 2048",
            ) from error
        rows = [m for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []
        models = {m["id"]: m for m in rows if _is_text(m.get("id"))}
        if name is None and len(models) == 1:
            name = next(iter(models))
        if name is None or (models and name not in models):
            shown = ", ".join(sorted(models)[:8]) or "no models"
            raise EndpointError(
                f"The server has no model {name!r}" if name else "Which of the server's models is meant?",
                where=f"{self._client.url}/models",
                why=f"it has {shown}",
                fix=f"name one: {self._client.url}#MODEL",
            )
        about = models.get(name, {})
        found = (about.get(key) for key in _CONTEXT_KEYS)
        context = next((n for n in found if type(n) is int and n > 0), None)
        behind = about.get(IDENTITY_KEY)
        return name, context, behind if _is_text(behind) else ""

    def _each(
        self, requests: Sequence[_Request], ask: Callable[[_Request, Event], _Answer | Failed]
    ) -> Iterator[tuple[int, _Answer | Failed]]:
        """Ask for all, a few at a time; what is answered first comes first."""
        asked: SimpleQueue[tuple[int, _Request]] = SimpleQueue()
        answered: SimpleQueue[tuple[int, _Answer | Failed | Exception]] = SimpleQueue()
        stop = Event()

        def work() -> None:
            with suppress(Empty):
                while not stop.is_set():
                    index, request = asked.get_nowait()
                    try:
                        answered.put((index, ask(request, stop)))
                    except Exception as error:
                        answered.put((index, error))

        for numbered in enumerate(requests):
            asked.put(numbered)
        for _ in range(min(self._threads, len(requests))):
            Thread(target=work, daemon=True).start()
        try:
            for _ in requests:
                index, answer = answered.get()
                if isinstance(answer, Exception):
                    raise answer
                yield index, answer
        finally:
            stop.set()

    def _completion(self, prompt: Prompt, stop: Event) -> Completion | Failed:
        body: dict[str, Any] = {
            "model": self._name,
            "prompt": prompt.text,
            "max_tokens": prompt.max_tokens,
            "temperature": prompt.temperature,
            "top_p": prompt.top_p,
            "seed": prompt.seed,
        }
        if prompt.stop:
            body["stop"] = list(prompt.stop[:_MOST_STOPS])
        try:
            return self._client.post("/completions", body, lambda answer: _completion(answer, prompt), stop)
        except Unanswered as error:
            return Failed(str(error))

    def _likelihood(self, choice: Choice, stop: Event) -> Likelihood | Failed:
        with self._probing:
            if self._no_likelihoods is None:
                self._no_likelihoods = self._probe(stop)
        return Failed(self._no_likelihoods) if self._no_likelihoods else self._echoed(choice, stop)

    def _probe(self, stop: Event) -> str:
        """Why the server cannot say how likely a text is; empty if it can."""
        found = self._echoed(_PROBE, stop)
        if isinstance(found, Likelihood):
            return ""
        return f"the server gives no likelihoods (echo and logprobs of a prompt): {found.why}"

    def _echoed(self, choice: Choice, stop: Event) -> Likelihood | Failed:
        """One token more than the text is asked for, and left out: many servers refuse to write none."""
        body = {
            "model": self._name,
            "prompt": choice.context + choice.continuation,
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": 1,
            "echo": True,
        }
        try:
            return self._client.post("/completions", body, lambda answer: _likelihood(answer, choice), stop)
        except Unanswered as error:
            return Failed(str(error))


def _choice(answer: dict[str, Any]) -> dict[str, Any]:
    """The only choice of an answer, which has a text. Raises ValueError."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        count = len(choices) if isinstance(choices, list) else "no"
        raise ValueError(f"{count} choices in place of 1")
    if not _is_text(choices[0].get("text")):
        raise ValueError("a choice without text")
    return choices[0]


def _is_text(value: Any) -> TypeGuard[str]:
    """Whether it is a text that can be written down: JSON may hold half of a surrogate pair."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def _completion(answer: dict[str, Any], prompt: Prompt) -> Completion:
    """Raises ValueError."""
    choice = _choice(answer)
    usage = answer.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    text: str = choice["text"]
    ends = [at for stop in prompt.stop if (at := text.find(stop)) >= 0]
    stopped = bool(ends) or choice.get("finish_reason") == "stop"
    return Completion(
        text[: min(ends, default=len(text))],
        tokens if type(tokens) is int and tokens >= 0 else prompt.max_tokens,
        "stop" if stopped else "length",
    )


def _likelihood(answer: dict[str, Any], choice: Choice) -> Likelihood | Failed:
    """Raises ValueError for an answer that contradicts itself; Failed where the server does not echo."""
    text, logprobs = _choice(answer)["text"], _choice(answer).get("logprobs")
    prompt = choice.context + choice.continuation
    if not text.startswith(prompt):
        return Failed("it does not repeat the prompt")
    if not isinstance(logprobs, dict) or not isinstance(logprobs.get("token_logprobs"), list):
        return Failed("it gives no logprobs of tokens")
    columns = [logprobs.get(key) for key in ("token_logprobs", "text_offset", "tokens", "top_logprobs")]
    lists = [column for column in columns if isinstance(column, list)]
    if len(lists) < len(columns) or len(set(map(len, lists))) != 1:
        raise ValueError("logprobs whose columns differ in length")
    values, offsets, tokens, tops = lists
    starts = _starts(offsets, tokens, prompt)
    begin = len(choice.context.rstrip())
    mine = [
        i
        for i, (start, stop) in enumerate(zip(starts, [*starts[1:], len(text)], strict=True))
        if start < len(prompt) and (start >= begin or stop > begin)
    ]
    if not mine or len(mine) == len(starts):
        raise ValueError("logprobs that do not cover the prompt and one token behind it")
    if values[mine[0]] is None:
        return Failed("a text's first token has no likelihood: there is nothing before it")
    return Likelihood(
        math.fsum(_finite(values[i]) for i in mine),
        all(_is_top(values[i], tops[i]) for i in mine),
        len(mine),
    )


def _starts(offsets: list[Any], tokens: list[Any], prompt: str) -> list[int]:
    """Where in the text each token starts; -1: a beginning of text that the server adds."""
    if any(type(n) is not int for n in offsets) or any(a > b for a, b in pairwise(offsets)):
        raise ValueError("text_offset is not a rising list of whole numbers")
    first = str(tokens[0]) if len(tokens) > 1 else prompt
    if prompt.startswith(first) or first.startswith("bytes:") or "\ufffd" in first:  # or parts of a character
        return offsets
    return [-1, *(n - offsets[1] for n in offsets[1:])]


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -math.inf < value <= 1e-3:
        raise ValueError(f"a log-probability of {value!r}")
    return float(value)


def _is_top(value: float, top: Any) -> bool:
    if not isinstance(top, dict) or not top:
        raise ValueError("no top_logprobs of a token")
    return value >= max(map(_finite, top.values()))
