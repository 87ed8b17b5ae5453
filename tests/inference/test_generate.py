"""Writing behind a cache is writing by full forward passes, alone or together with others."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from growlm.inference.generate import Draw, Wanted, Written, write
from growlm.inference.requests import Completion, Prompt
from growlm.inference.text import Stream
from tests.inference.models import FAMILIES, greedy, local

TEXTS = ("the cat sat", "a", "and the dog ran to the hat, and the cat", "")


def told(model: Any, prompts: list[Prompt]) -> list[Completion]:
    found = dict(model.completions(prompts))
    assert sorted(found) == list(range(len(prompts)))
    return [found[i] for i in range(len(prompts))]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_is_the_full_pass(family: str) -> None:
    model = local(family)
    ids = [model.text.encode(text) or [model.text.prefix_id] for text in TEXTS]
    counts = (9, 12, 4, 7)
    model.text.ends = frozenset()
    batch = [Wanted(i, n, Draw()) for i, n in zip(ids, counts, strict=True)]
    for one, written in zip(batch, write(model.decoder, model.text, batch, slots=32), strict=True):
        assert written.ids == greedy(model.decoder, one.ids, one.max_tokens, model.text.vocab_size)
        assert written.finish == "length"


def test_a_text_ends_at_its_stop_also_across_tokens_and_without_it() -> None:
    model = local()
    model.text.vocab_size = 90  # characters of ASCII only, each a token
    free = told(model, [Prompt("the cat", 12)])[0]
    assert len(free.text) == 12
    stop = free.text[3:6]
    cut = told(model, [Prompt("the cat", 12, stop=("never", stop))])[0]
    assert cut.finish == "stop"
    assert cut.text == free.text[: free.text.index(stop)]
    assert cut.tokens < free.tokens


def test_a_stop_ends_a_text_where_it_begins_wherever_tokens_are_cut() -> None:
    text = local().text
    for stop, left in (("t sa", "the ca"), ("the", ""), ("at on the m", "the cat s"), ("dog", None)):
        row = Written(Wanted([1], 99, Draw(), ("???", "", stop)), Stream(text))
        for token in text.encode("the cat sat on the mat"):
            if row.finish is None:
                row.take(token, frozenset())
        assert row.finish == (None if left is None else "stop")
        assert row.text == ("the cat sat on the mat" if left is None else left)


def test_a_text_ends_at_its_end_token() -> None:
    model = local()
    free = told(model, [Prompt("the dog", 8)])[0]
    ids = greedy(model.decoder, model.text.encode("the dog"), 8, model.text.vocab_size)
    model.text.ends = frozenset({ids[3]})
    first = ids.index(ids[3])
    found = told(model, [Prompt("the dog", 8)])[0]
    assert (found.finish, found.tokens) == ("stop", first)
    assert free.text.startswith(found.text.rstrip("\ufffd"))


def test_a_draw_depends_on_nothing_but_its_seed() -> None:
    model = local(context=64)
    one = Prompt("the cat sat", 10, temperature=1.5, top_p=0.9, seed=4)
    others = [Prompt(text, 3 + i, temperature=0.5 * i, seed=i) for i, text in enumerate(TEXTS)]
    alone = told(model, [one])[0]
    assert told(model, [*others, one, *others])[len(others)] == alone
    assert told(model, [Prompt("the cat sat", 10, temperature=1.5, top_p=0.9, seed=5)])[0] != alone


def test_draws_are_as_likely_as_they_should_be() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 5.0]).log_softmax(-1)
    counts = torch.zeros(5)
    draw = Draw(temperature=2.0, seed=1)
    for _ in range(4000):
        counts[draw(logits)] += 1
    assert torch.allclose(counts / 4000, (logits / 2).softmax(-1), atol=0.03)
    draw = Draw(temperature=2.0, top_p=0.7, seed=1)
    expected = (logits / 2).softmax(-1)
    drawn = {draw(logits) for _ in range(200)}
    assert drawn == {4, 0}  # the fewest that have 0.7 together
    assert expected[4] < 0.7 <= expected[4] + expected[0]
    assert {Draw(temperature=9.0, top_k=1, seed=i)(logits) for i in range(9)} == {4}


def test_tokens_that_mean_nothing_are_never_drawn() -> None:
    model = local(padding=200)
    with torch.no_grad():  # rows without a meaning shout
        model.decoder.head[model.text.vocab_size :] = 50 * model.decoder.head[:200]
    drawn = told(model, [Prompt("the", 20, temperature=3.0), Prompt("the", 20)])
    assert [d.tokens for d in drawn] == [20, 20]
    writer = model.writer()
    tokens = list(writer.stream([1, 2], Draw(2.0), max_tokens=20, top=3))
    assert all(i < model.text.vocab_size for t in tokens for i in (t.id, *(j for j, _ in t.top)))


def test_what_does_not_fit_is_cut_and_counted() -> None:
    model = local(context=16)
    model.text.ends = frozenset()
    ids = model.text.encode("the cat sat on the mat, and the dog ran to the hat, he said")
    assert len(ids) > 16
    text = model.text.decode(ids)
    found = told(model, [Prompt(text, 6), Prompt(text, 16), Prompt(text, 50), Prompt("a", 50)])
    assert [(f.tokens, f.cut, f.finish) for f in found] == [
        (6, len(ids) - 10, "length"),
        (8, len(ids) - 8, "length"),  # the answer would fill the context: half of it is the text's
        (8, len(ids) - 8, "length"),
        (15, 0, "length"),
    ]
    assert found[0].text == model.text.decode(greedy(model.decoder, ids[-10:], 6, model.text.vocab_size))


def test_nothing_is_wanted() -> None:
    assert told(local(), [Prompt("the cat", 0)]) == [Completion("", 0, "length")]


@pytest.mark.parametrize("family", ["flm", "gpt2"])
def test_streams_go_on_where_they_were(family: str) -> None:
    """A second turn, another beginning, and a text that outgrows the context."""
    model = local(family, context=24)
    model.text.ends = frozenset()
    writer, known = model.writer(), model.text.vocab_size
    for ids in ([5, 6, 7], [5, 6, 7, 9, 9, 1], [5, 6, 2], [8] * 10):
        written = [token.id for token in writer.stream(ids, Draw(), max_tokens=6)]
        assert written == greedy(model.decoder, ids, 6, known)
    read: list[int] = []
    model.decoder.register_forward_pre_hook(lambda _, args: read.append(args[0].shape[1]))
    turn = [8] * 10 + written
    list(writer.stream([*turn, 1, 2], Draw(), max_tokens=2))
    assert read == [3, 1]  # the last token of the turn before was written, and not yet read
    long = [token.id for token in writer.stream([3] * 24, Draw(), max_tokens=20)]
    window, expected = [3] * 24, []
    for _ in range(20):
        window = window[-12:] if len(window) > 24 else window
        expected += greedy(model.decoder, window, 1, known)
        window = [*window, expected[-1]]
    assert long == expected


def test_how_likely_what_was_written_is() -> None:
    model = local()
    ids = [1, 2, 3, 4]
    logits, known = model.decoder.logits(torch.tensor([ids]))[0], model.text.vocab_size
    assert logits.shape[1] > known
    logprobs = logits.log_softmax(-1)[:, :known]  # of all rows, as likelihoods are
    judged = model.writer().judged(ids, top=2)
    assert [t.id for t in judged] == ids[1:]
    for i, token in enumerate(judged):
        assert token.logprob == pytest.approx(logprobs[i, token.id].item())
        values, likeliest = logprobs[i].topk(2)
        assert token.top == [
            (a, pytest.approx(b)) for a, b in zip(likeliest.tolist(), values.tolist(), strict=True)
        ]
    first = next(model.writer().stream(ids, Draw(), max_tokens=1, top=1))
    drawn = logits[-1, :known].log_softmax(-1)  # of what can be drawn
    assert first.logprob == pytest.approx(drawn.max().item())


def test_characters_that_are_spread_over_tokens() -> None:
    text = local().text
    whole = "the ☃ 猫 cat 🐈"
    ids, stream = text.encode(whole), Stream(text)
    parts = [stream.push(i) for i in ids]
    assert len(ids) > len(whole) / 2
    assert "".join(parts) + stream.finish() == whole
    assert all("\ufffd" not in part for part in parts)
    half = Stream(text)
    assert half.push(text.encode("☃")[0]) == ""
    assert half.finish() == "\ufffd"


def test_a_stop_inside_a_character_is_none() -> None:
    text = local().text
    row = Written(Wanted([1], 9, Draw(), ("\ufffd",)), Stream(text))
    for token in text.encode("☃"):
        row.take(token, frozenset())
    assert row.text == "☃"
    assert row.finish is None
