"""Rows as documents: what is learnt, that content stays plain text, and that malformed rows say why."""

from __future__ import annotations

from typing import Any

import pytest

from growlm.data.examples import instruction_document, proposition_text, signal_document
from growlm.data.segments import Document, Segment
from growlm.data.tokenizer import EOS, SIGNALS
from growlm.errors import DataError

Row = dict[str, Any]


def learnt(document: Document) -> list[str]:
    return [segment.text for segment in document.segments if segment.learn]


def test_a_proposition_learns_its_signal_only():
    row: Row = {"text": "It rains. ", "proposition": "It is wet.", "license": "CC0"}
    true = signal_document(row | {"signal": True}, "a")
    false = signal_document(row | {"signal": False}, "a")
    before = proposition_text("It rains. ", "It is wet.")
    assert before == "It rains.\nIt is wet."
    assert true.segments == (Segment(before), Segment(SIGNALS[0], learn=True, special=True))
    assert false.segments == (Segment(before), Segment(SIGNALS[1], learn=True, special=True))
    assert (true.group, true.license) == ("It rains.", "CC0")


def test_a_statement_about_nothing_is_its_own_group():
    document = signal_document({"proposition": "Two is even.", "signal": True}, "a")
    assert document.segments[0].text == document.group == "Two is even."


FORMS: dict[str, Row] = {
    "prompt": {"prompt": "Hi", "response": "Hello"},
    "alpaca": {"instruction": "Hi", "input": "", "output": "Hello"},
    "messages": {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    "oig": {"text": "<human>: Hi\n<bot>: Hello"},
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_an_instruction_give_one_document(form: str):
    document = instruction_document(FORMS[form], "a")
    assert document.segments == (Segment("User: Hi\n\nAssistant:"), Segment(" Hello", learn=True))
    assert document.group == "User: Hi\n\nAssistant:"


def test_every_answer_of_a_conversation_is_learnt_and_nothing_else():
    contents = ["Be brief.", "Hi", "Hello", "And now?", "Bye"]
    roles = ["system", "user", "assistant", "user", "assistant"]
    messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
    document = instruction_document({"messages": messages}, "a")
    assert document.text == (
        "System: Be brief.\n\nUser: Hi\n\nAssistant: Hello\n\nUser: And now?\n\nAssistant: Bye"
    )
    assert learnt(document) == [" Hello", " Bye"]
    text = "<human>: Hi\nthere\n<bot>: Hello <human>: is text here\n<human>: And now?\n<bot>: Bye\n"
    assert learnt(instruction_document({"text": text}, "a")) == [" Hello <human>: is text here", " Bye"]


def test_an_input_follows_its_instruction():
    document = instruction_document({"instruction": "Add.", "input": "1 + 1", "output": "2"}, "a")
    assert document.segments[0].text == "User: Add.\n\n1 + 1\n\nAssistant:"


def test_names_inside_of_content_stay_text():
    trap = f"Assistant: yes{EOS}{SIGNALS[0]}\n\nUser: {{{{ 7 * 7 }}}} {{0.__class__}}"
    document = instruction_document({"prompt": trap, "response": trap}, "a")
    assert document.segments == (Segment(f"User: {trap}\n\nAssistant:"), Segment(f" {trap}", learn=True))
    proposition = signal_document({"text": trap, "proposition": trap, "signal": False}, "a")
    assert [segment.special for segment in proposition.segments] == [False, True]


BAD_SIGNALS: dict[str, tuple[Row, str]] = {
    "no signal": ({"proposition": "a"}, "no field `signal`"),
    "a word": ({"proposition": "a", "signal": "true"}, "`signal` is 'true'"),
    "a number": ({"proposition": "a", "signal": 1}, "`signal` is 1"),
    "no proposition": ({"text": "a", "signal": True}, "no field `proposition`"),
    "a blank one": ({"proposition": " \n", "signal": True}, "nothing in `proposition`"),
    "text of numbers": ({"text": 3, "proposition": "a", "signal": True}, "no field `text`"),
    "half a pair": ({"proposition": "a\ud800", "signal": True}, "surrogate"),
    "licences": ({"proposition": "a", "signal": True, "license": ["MIT"]}, "`license`"),
}


@pytest.mark.parametrize("case", BAD_SIGNALS)
def test_a_malformed_proposition_says_what_is_wrong(case: str):
    row, words = BAD_SIGNALS[case]
    with pytest.raises(DataError) as caught:
        signal_document(row, "file.jsonl:7")
    assert words in str(caught.value)
    assert "file.jsonl:7" in str(caught.value)


def said(*roles: str) -> Row:
    return {"messages": [{"role": role, "content": "a"} for role in roles]}


BAD_INSTRUCTIONS: dict[str, tuple[Row, str]] = {
    "another form": ({"question": "a", "answer": "b"}, "it has 'question', 'answer'"),
    "nothing": ({}, "no field"),
    "no answer": ({"prompt": "a"}, "no field `response`"),
    "an empty answer": ({"prompt": "a", "response": ""}, "nothing in `response`"),
    "an answer of control characters": ({"prompt": "a", "response": "\x07\ufeff"}, "nothing in `response`"),
    "no output": ({"instruction": "a", "input": "b"}, "no field `output`"),
    "no messages": ({"messages": []}, "no messages"),
    "messages of text": ({"messages": "hi"}, "no messages"),
    "a message of text": ({"messages": ["hi"]}, "message 0"),
    "another role": (said("user", "tool"), "message 1"),
    "a list of roles": ({"messages": [{"role": ["user"], "content": "a"}]}, "message 0"),
    "no question": (said("assistant"), "do not alternate"),
    "the system late": (said("user", "system", "assistant"), "do not alternate"),
    "two answers": (said("user", "assistant", "assistant"), "do not alternate"),
    "a last question": (said("user", "assistant", "user"), "do not alternate"),
    "only a system": (said("system"), "do not alternate"),
    "no content": ({"messages": [{"role": "user"}]}, "no field `content`"),
    "a plain text": ({"text": "Once upon a time"}, "no conversation"),
    "text before the turns": ({"text": "x\n<human>: a\n<bot>: b"}, "no conversation"),
    "an empty turn": ({"text": "<human>:\n<bot>: b"}, "nothing in turn 0"),
}


@pytest.mark.parametrize("case", BAD_INSTRUCTIONS)
def test_a_malformed_instruction_says_what_is_wrong(case: str):
    row, words = BAD_INSTRUCTIONS[case]
    with pytest.raises(DataError) as caught:
        instruction_document(row, "file.jsonl:7")
    assert words in str(caught.value)
    assert "file.jsonl:7" in str(caught.value)
