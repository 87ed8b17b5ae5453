"""Texts that grow in turns: what a user types, and what the model writes behind it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

from growlm.convert.folder import is_folder_of_weights
from growlm.data.card import read_card
from growlm.data.examples import ROLES
from growlm.data.tokenizer import Tokenizer
from growlm.data.tokenizer_files import TOKENIZER
from growlm.inference.generate import Draw
from growlm.inference.local import Local
from growlm.inference.steps import steps
from growlm.inference.text import UNKNOWN
from growlm.train.restore import find_checkpoint, find_tokenizer
from growlm.train.stored import DATA_CARD

_ASK, _ANSWER = f"{ROLES['user']}: ", f"\n\n{ROLES['assistant']}:"
_NEXT = f"\n\n{_ASK.rstrip()}"
HELP = "Type, and the model goes on. /reset begins anew, Ctrl-C stops an answer, /quit or Ctrl-D leaves."


class Conversation:
    """One growing text. `new_draw` begins the draws of a conversation; `tokens` is the most for an answer.

    `instructed`: turns are written as instructions are in training (docs/freelm.md), and an answer ends
    where the next turn would begin. Else a turn is a line of text, and the model goes on with it.
    """

    def __init__(
        self, model: Local, new_draw: Callable[[], Draw], *, tokens: int, instructed: bool = False
    ) -> None:
        self._model, self._new_draw = model, new_draw
        self._tokens, self._instructed = tokens, instructed
        self._writer = model.writer()
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._ids: list[int] = []
        self._draw = self._new_draw()
        self._unended = False

    @property
    def is_cut(self) -> bool:
        """Whether the text has outgrown the context, so that its beginning is no longer seen."""
        return len(self._ids) > self._model.context

    def say(self, typed: str) -> Iterator[str]:
        """The answer to a turn, in pieces of whole characters. What was given stays if it is left early."""
        self._add(typed)
        text, start, said = self._model.text, len(self._ids), ""
        stop = (_NEXT,) if self._instructed else ()
        for step in steps(self._writer, text, self._ids, self._draw, max_tokens=self._tokens, stop=stop):
            if step.token is not None:
                self._unended = step.token.id not in text.ends
                if self._unended or not self._instructed:  # else the next turn follows as in training,
                    self._ids.append(step.token.id)  # without the end of a document between
            said += step.sure
            if step.finish == "stop" and self._unended:
                self._ids[start:] = text.encode(said, frame=False)
            # at the end a character may lack its own
            if sure := step.sure.rstrip(UNKNOWN) if step.finish else step.sure:
                yield sure

    def _add(self, typed: str) -> None:
        """Put a turn behind the text."""
        text = self._model.text
        if self._instructed:
            typed = ("\n\n" if self._ids else "") + _ASK + typed + _ANSWER
        elif self._unended:
            typed = "\n" + typed
        self._ids += text.encode(typed, frame=not self._ids) if typed else []
        self._ids = self._ids or [text.prefix_id]


def converse(
    conversation: Conversation,
    read: Callable[[], str],
    show: Callable[[str], None],
    note: Callable[[str], None] | None,
) -> None:
    """Turns until `read` raises EOFError or gives /quit; Ctrl-C (KeyboardInterrupt) ends an answer only.

    `show` writes pieces of answers, and `note` lines about the conversation; without `note` nobody is there
    to read them, and an unknown /command is a text like any other.
    """
    was_cut = False
    while True:
        try:
            typed = read()
            if typed.strip() == "/quit":
                return
            if typed.strip() == "/reset":
                conversation.reset()
                if note:
                    note("(a new conversation)")
                continue
            if note and typed.startswith("/") and typed[1:].strip().isalpha():
                note(HELP)
                continue
            for piece in conversation.say(typed):
                show(piece)
            show("\n")
        except EOFError:
            return
        except KeyboardInterrupt:
            show("\n")
        if note and conversation.is_cut and not was_cut:
            note("(the text has outgrown the context: the model no longer sees its beginning)")
        was_cut = conversation.is_cut


def go_on(model: Local, prompt: str, draw: Draw, *, tokens: int) -> str:
    """What the model writes behind a prompt."""
    ids = model.text.prompts([prompt])[0]
    return "".join(step.sure for step in steps(model.writer(), model.text, ids, draw, max_tokens=tokens))


def visible(text: str) -> str:
    """Text for a terminal, which obeys control characters: these become U+FFFD."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else UNKNOWN for c in text)


def checkpoint_path(source: Path) -> Path:
    """The newest valid checkpoint of a run, or the folder itself if it is one. Raises CheckpointError."""
    return source if is_folder_of_weights(source) else find_checkpoint(source).path


def tokenizer_of(path: Path, data: Path | None) -> Tokenizer:
    """The tokenizer of a checkpoint or a folder, as data. Raises CheckpointError, DataError."""
    if is_folder_of_weights(path):
        return Tokenizer.load(path / TOKENIZER)
    return find_tokenizer(find_checkpoint(path), data)


def is_instructed(path: Path) -> bool:
    """Whether the run of a checkpoint has learnt instructions, by its data card."""
    card = None if is_folder_of_weights(path) else read_card(path.parent.parent / DATA_CARD)
    return card is not None and any(s["kind"] == "instructions" for s in card["sources"].values())
