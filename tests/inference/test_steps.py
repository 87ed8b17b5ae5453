"""Texts in pieces: the pieces are the text as it stands behind its prompt, up to the first stop."""

from __future__ import annotations

import pytest
import tokenizers

from growlm.inference.chat import Conversation, go_on
from growlm.inference.generate import Draw
from growlm.inference.local import Local
from growlm.inference.steps import HeldBack, steps
from growlm.inference.text import Stream, Text
from tests.inference.models import local, model
from tests.model.tiny import config

PIECES = ["<unk>", "</s>", "▁the", "▁cat", "▁", "▁sat", "s", "t", "h", "e", "c", "a", "▁on", "▁mat"]


def llamas(*, context: int = 64) -> Local:
    """A model whose tokenizer writes a space as ▁ and drops the one at the beginning of a text."""
    vocab = {piece: i for i, piece in enumerate(PIECES)}
    merges = [("▁", "t"), ("▁", "c"), ("▁", "s")]
    vocab |= {a + b: len(vocab) + i for i, (a, b) in enumerate(merges)}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges, unk_token="<unk>"))
    inner.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    inner.decoder = tokenizers.decoders.Sequence(
        [tokenizers.decoders.Replace("▁", " "), tokenizers.decoders.Fuse(), tokenizers.decoders.Strip(" ", 1)]
    )
    inner.add_special_tokens(["<unk>", "</s>"])
    text = Text({"tokenizer.json": inner.to_str().encode()})
    c = config("llama", vocab_size=text.vocab_size)
    return Local(model("llama", c=c), text, context=context, identity="")


def test_the_space_between_a_prompt_and_its_answer_is_kept() -> None:
    asked, spaced = llamas(), 0
    for seed in range(8):
        draw = Draw(3.0, seed=seed)
        ids = asked.text.encode("the cat")
        found = list(steps(asked.writer(), asked.text, ids, draw, max_tokens=6))
        written = [step.token.id for step in found if step.token]
        whole = asked.text.decode(ids + written)
        answer = "".join(step.sure for step in found)
        assert "the cat" + answer == whole
        assert "the cat" + go_on(asked, "the cat", Draw(3.0, seed=seed), tokens=6) == whole
        talk = Conversation(asked, lambda seed=seed: Draw(3.0, seed=seed), tokens=6)
        assert "the cat" + "".join(talk.say("the cat")) == whole
        spaced += answer.startswith(" ")
    assert spaced > 0


def test_a_prompt_that_ends_inside_a_character_adds_nothing_to_the_text() -> None:
    text = local().text
    ids = text.encode("a 河 the")
    for cut in range(1, len(ids)):
        stream, alone = Stream(text, ids[:cut]), Stream(text)
        found = "".join(map(stream.push, ids[cut:])) + stream.finish()
        assert found == "".join(map(alone.push, ids[cut:])) + alone.finish()


@pytest.mark.parametrize("text", ["aab", "abab", "xaax", "", "ab", "aaab", "baba"])
def test_text_is_held_back_while_it_may_be_a_stop(text: str) -> None:
    stops = ("ab", "bb", "aac")
    expected = text[: min((at for s in stops if (at := text.find(s)) >= 0), default=len(text))]
    held = HeldBack(stops)
    assert "".join(map(held.push, text)) + held.finish() == expected
    assert held.stopped == (expected != text)
