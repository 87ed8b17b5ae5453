"""Conversations: what the model sees of them, and that Ctrl-C costs an answer and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from growlm.inference.chat import Conversation, converse, go_on, visible
from growlm.inference.generate import Draw
from growlm.inference.local import Local
from growlm.inference.requests import Completion, Prompt
from growlm.inference.text import UNKNOWN
from tests.inference.models import greedy, local


def conversation(model: Local, *, tokens: int = 5, instructed: bool = False) -> Conversation:
    return Conversation(model, Draw, tokens=tokens, instructed=instructed)


def next_ids(model: Local, ids: list[int], tokens: int) -> list[int]:
    """The greedy answer up to a token that ends the text, by full passes."""
    found = greedy(model.decoder, ids, tokens, model.text.vocab_size)
    ends = [i for i, token in enumerate(found) if token in model.text.ends]
    return found[: ends[0] + 1] if ends else found


@pytest.mark.parametrize("family", ["flm", "llama"])
def test_each_turn_goes_on_with_all_that_was_said(family: str) -> None:
    model = local(family, context=128)
    talk, ids = conversation(model), []
    for number, typed in enumerate(["the cat", "sat on 河", ""]):
        before = "\n" if number and ids[-1] not in model.text.ends else ""
        ids += model.text.encode(before + typed, frame=not ids)
        answer = next_ids(model, ids, 5)
        said = model.text.decode([i for i in answer if i not in model.text.ends])
        assert "".join(talk.say(typed)) == said.rstrip(UNKNOWN)
        ids += answer
    assert talk._ids == ids
    talk.reset()
    assert "".join(talk.say("the cat")) == "".join(conversation(model).say("the cat"))


def test_instructions_are_written_as_in_training() -> None:
    model = local(context=128)
    talk = conversation(model, instructed=True)
    first = list(talk.say("Who sat?"))
    head = model.text.encode("User: Who sat?\n\nAssistant:")
    assert talk._ids[: len(head)] == head
    said = talk._ids[len(head) :]
    assert not model.text.ends & set(said)
    assert "".join(first) == model.text.decode(said).rstrip(UNKNOWN)
    list(talk.say("Where?"))
    turn = model.text.encode("\n\nUser: Where?\n\nAssistant:", frame=False)
    assert talk._ids[len(head) + len(said) :][: len(turn)] == turn


def test_no_character_is_shown_before_it_is_whole() -> None:
    model = local(context=128)
    for seed in range(8):
        talk = Conversation(model, lambda s=seed: Draw(2.0, seed=s), tokens=30)
        pieces = list(talk.say("x"))
        assert not pieces or not pieces[-1].endswith(UNKNOWN)
        typed = model.text.decode(talk._ids)
        assert typed.startswith("x" + "".join(pieces))


def test_ctrl_c_ends_an_answer_and_leaves_what_was_given() -> None:
    model, shown, noted = local(context=64), [], []
    talk = conversation(model, tokens=8)
    turns = iter(["the cat", KeyboardInterrupt(), "/help", "/reset", "the dog", "/quit", "never"])
    whole = "".join(conversation(model, tokens=8).say("the dog"))

    def read() -> str:
        turn = next(turns)
        if isinstance(turn, BaseException):
            raise turn
        return turn

    def show(text: str) -> None:
        shown.append(text)
        if len(shown) == 1:
            raise KeyboardInterrupt

    converse(talk, read, show, noted.append)
    assert next(turns) == "never"
    assert "".join(shown).endswith(f"\n{whole}\n")
    assert len(noted) == 2
    assert "/reset" in noted[0]


def test_a_reading_that_was_interrupted_is_done_again() -> None:
    model = local(context=64)
    writer = model.writer()
    list(writer.stream(model.text.encode("the cat sat on the mat"), Draw(), max_tokens=3))
    calls = []

    def interrupt(*_: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt

    hook = model.decoder.norm.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(writer.stream(model.text.encode("the dog ran to the hat and sat"), Draw(), max_tokens=3))
    hook.remove()
    ids = model.text.encode("the cat sat on the hat and ran")
    found = [token.id for token in writer.stream(ids, Draw(), max_tokens=6, ends=False)]
    assert found == greedy(model.decoder, ids, 6, model.text.vocab_size)


def test_a_text_that_outgrows_the_context_is_said() -> None:
    model, noted = local(context=16), []
    turns: Iterator[str] = iter(["the cat sat", "the dog ran to the hat", "and"])

    def read() -> str:
        try:
            return next(turns)
        except StopIteration:
            raise EOFError from None

    converse(conversation(model, tokens=12), read, lambda _: None, noted.append)
    assert len(noted) == 1
    assert "no longer sees" in noted[0]


def test_a_single_prompt_is_answered_as_a_batch_is() -> None:
    model = local(context=64)
    prompts = [
        Prompt("the cat", 9),
        Prompt("a 河", 9),
        Prompt("", 9),
        Prompt("t", 9, temperature=0.8, seed=4),
    ]
    for index, answer in model.completions(prompts):
        assert isinstance(answer, Completion)
        prompt = prompts[index]
        draw = Draw(prompt.temperature, seed=prompt.seed)
        assert go_on(model, prompt.text, draw, tokens=9) == answer.text


def test_a_terminal_is_given_nothing_to_obey() -> None:
    assert visible("a\x1b[2Jb\x9b\r\n\t河 👩‍🚀") == f"a{UNKNOWN}[2Jb{UNKNOWN}{UNKNOWN}\n\t河 👩‍🚀"
