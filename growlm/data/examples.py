"""Rows of labelled data as documents: propositions with their truth, and prompts with their answers.

A proposition is FreeLM's (arXiv 2305.01616) in FLM-101B's unified form (arXiv 2309.03852): text, statement,
and one of two special tokens that says whether the statement is true. Only that token is learnt.

An instruction is written with one plain template, in which the answers are learnt:

    System: ...

    User: ...

    Assistant: ...

Names of roles and of special tokens inside of a text are text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from growlm.data.cleaning.normalise import normalise
from growlm.data.reading.text import check_characters
from growlm.data.segments import Document, Segment
from growlm.data.tokenizer import SIGNALS
from growlm.errors import DataError

ROLES = {"system": "System", "user": "User", "assistant": "Assistant"}
_OIG = re.compile(r"^<(human|bot)>:", re.MULTILINE)
_OIG_ROLES = {"human": "user", "bot": "assistant"}
_FORMS = (
    '{"prompt", "response"}, {"instruction", "input", "output"}, {"messages"} or {"text": "<human>: ..."}'
)

Row = Mapping[str, Any]


class Turn(NamedTuple):
    """What one side of a conversation says."""

    role: str
    text: str


def proposition_text(text: str, proposition: str) -> str:
    """What stands before the signal: the text that a statement is about (or none) and the statement."""
    return "\n".join(part for part in (text.strip(), proposition.strip()) if part)


def signal_document(row: Row, where: str) -> Document:
    """The document of {"text", "proposition", "signal"}; `text` may be empty or missing.

    Raises DataError for a row that is malformed; `where` is its place.
    """
    about = _string(row, "text", where, empty=True)
    proposition = _string(row, "proposition", where)
    truth = row.get("signal")
    if not isinstance(truth, bool):
        raise _malformed(
            "The signal of a proposition is not true or false",
            where,
            f"`signal` is {_shown(truth)}" if "signal" in row else "it has no field `signal`",
            'write {"text": "...", "proposition": "...", "signal": true}',
        )
    segments = (
        Segment(proposition_text(about, proposition)),
        Segment(SIGNALS[0 if truth else 1], learn=True, special=True),
    )
    return Document(segments, about.strip() or proposition.strip(), _license(row, where))


def instruction_document(row: Row, where: str) -> Document:
    """The document of a prompt with its response, in one of four forms, or of a conversation.

    {"prompt", "response"}; {"instruction", "input" (or none), "output"} of Alpaca and COIG; {"messages":
    [{"role", "content"}]} with the roles system (first), user and assistant; {"text": "<human>: ...\\n<bot>:
    ..."} of OIG. Raises DataError for a row that is none of them; `where` is its place.
    """
    turns = _turns(row, where)
    _check_order([turn.role for turn in turns], where)
    segments: list[Segment] = []
    prompt = ""
    for turn in turns:
        prompt += f"{ROLES[turn.role]}:"
        if turn.role == "assistant":
            segments += [Segment(prompt), Segment(f" {turn.text}", learn=True)]
            prompt = "\n\n"
        else:
            prompt += f" {turn.text}\n\n"
    return Document(tuple(segments), segments[0].text, _license(row, where))


def _turns(row: Row, where: str) -> list[Turn]:
    if "messages" in row:
        return _messages(row["messages"], where)
    if "instruction" in row:
        task, given = _string(row, "instruction", where), _string(row, "input", where, empty=True)
        prompt = f"{task}\n\n{given}" if given else task
        return [Turn("user", prompt), Turn("assistant", _string(row, "output", where))]
    if "prompt" in row:
        prompt, response = _string(row, "prompt", where), _string(row, "response", where)
        return [Turn("user", prompt), Turn("assistant", response)]
    if "text" in row:
        return _oig(_string(row, "text", where), where)
    fields = ", ".join(map(repr, row)) or "no field"
    raise _malformed("A row is no instruction", where, f"it has {fields}", f"write {_FORMS}")


def _messages(messages: object, where: str) -> list[Turn]:
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise _malformed(
            "A conversation has no messages",
            where,
            f"`messages` is {_shown(messages)}",
            'write {"messages": [{"role": "user", "content": "..."}, ...]}',
        )
    turns = []
    for number, message in enumerate(messages):
        place = f"{where}: message {number}"
        if not isinstance(message, Mapping):
            raise _malformed("A message is not an object", place, f"it is {_shown(message)}", "")
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise _malformed(
                "A message has no known role", place, f"it is {_shown(role)}", f"one of {', '.join(ROLES)}"
            )
        turns.append(Turn(role, _string(message, "content", place)))
    return turns


def _oig(text: str, where: str) -> list[Turn]:
    """The turns of OIG's text; what stands before the first of them must be nothing."""
    before, *rest = _OIG.split(text)
    if not rest or before.strip():
        raise _malformed(
            "A text is no conversation",
            where,
            f"it begins with {_shown(text)}",
            "begin every turn with <human>: or <bot>: on a line of its own",
        )
    roles = [_OIG_ROLES[name] for name in rest[::2]]
    return [
        Turn(role, _checked(part, f"turn {number}", where))
        for number, (role, part) in enumerate(zip(roles, rest[1::2], strict=True))
    ]


def _check_order(roles: Sequence[str], where: str) -> None:
    """Raise DataError unless user and assistant take turns, behind at most one system, to an answer."""
    spoken = roles[1:] if roles[0] == "system" else roles
    expected = ["user", "assistant"] * (len(spoken) // 2)
    if not spoken or list(spoken) != expected:
        raise _malformed(
            "The turns of a conversation do not alternate",
            where,
            f"they are {', '.join(roles)}"[:300],
            "one system message or none, then user and assistant in turn; the last is an answer",
        )


def _string(row: Row, key: str, where: str, *, empty: bool = False) -> str:
    """A field's text without white space around it; where it may be `empty`, it may be missing too."""
    value = row.get(key)
    if value is None and empty:
        return ""
    if not isinstance(value, str):
        why = f"it is {_shown(value)}" if key in row else f"the row has {', '.join(map(repr, row))}"[:300]
        raise _malformed(f"A row has no field `{key}` with a string", where, why, "")
    return _checked(value, f"`{key}`", where, empty=empty)


def _checked(value: str, name: str, where: str, *, empty: bool = False) -> str:
    text = value.strip()
    check_characters(text, f"{where}: {name}")
    if not empty and not normalise(text).strip():
        why = f"it is {_shown(text)}, which is cleaned away" if text else ""
        raise _malformed(f"A row has nothing in {name}", where, why, "fill it in, or leave the row out")
    return text


def _license(row: Row, where: str) -> str:
    return _string(row, "license", where, empty=True)


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _malformed(what: str, where: str, why: str, fix: str) -> DataError:
    return DataError(what, where=where, why=why, fix=fix or "repair the row, or leave it out")
