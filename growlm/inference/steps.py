"""One text after the other, token by token: what of it is sure, and where it ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from growlm.inference.generate import Draw, Token, Writer, first_stop
from growlm.inference.text import Stream, Text

_BEFORE = 8  # ids of the prompt that the first token is decoded behind


@dataclass(frozen=True)
class Step:
    """A token that was written, and what comes of it."""

    token: Token | None
    """None: behind the last one."""
    new: str
    """More of the text; a character comes with its last token."""
    sure: str
    """More of what is before every stop."""
    finish: Literal["stop", "length"] | None
    """Set on the last step."""


def steps(
    writer: Writer,
    text: Text,
    ids: Sequence[int],
    draw: Draw,
    *,
    max_tokens: int,
    stop: Sequence[str] = (),
    top: int = 0,
) -> Iterator[Step]:
    """What the model writes behind `ids`, up to a token that ends the text, or the first of `stop`.

    The new texts stand as they are behind the text of the prompt, also where a tokenizer drops the space
    at the beginning of a text.
    """
    stream, held = Stream(text, ids[-_BEFORE:]), HeldBack(stop)
    for token in writer.stream(ids, draw, max_tokens=max_tokens, top=top):
        ended = token.id in text.ends
        new = stream.finish() if ended else stream.push(token.id)
        sure = held.push(new) + (held.finish() if ended else "")
        finish = "stop" if ended or held.stopped else None
        yield Step(token, new, sure, finish)
        if finish:
            return
    new = stream.finish()
    sure = held.push(new) + held.finish()
    yield Step(None, new, sure, "stop" if held.stopped else "length")


class HeldBack:
    """Text up to the first of some stops; what may be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops, self._held = stops, ""
        self.stopped = False

    def push(self, new: str) -> str:
        """What is sure of the text, more of which is `new`; nothing once it has stopped."""
        if self.stopped:
            return ""
        text = self._held + new
        found = first_stop(text, self._stops)
        if found is not None:
            self.stopped, self._held = True, ""
            return text[:found]
        most = max(map(len, self._stops), default=1) - 1
        lengths = range(min(most, len(text)), 0, -1)
        kept = next((n for n in lengths if any(s.startswith(text[-n:]) for s in self._stops)), 0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def finish(self) -> str:
        """What was held back, where nothing more comes."""
        held, self._held = self._held, ""
        return held
