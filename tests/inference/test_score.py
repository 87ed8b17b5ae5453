"""Likelihoods in trees are those of plain forward passes, one by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from growlm.inference.score import Asked, Cost, batches_of, rows_of, score
from growlm.model.decoder import Decoder
from tests.inference.models import FAMILIES, model

CONTEXT = 32


@torch.no_grad()
def alone(decoder: Decoder, asked: Asked) -> tuple[float, bool]:
    """By a plain forward pass."""
    ids = torch.tensor(asked.ids)
    logprobs = decoder.logits(ids[None, :-1])[0, -asked.scored :].log_softmax(-1)
    targets = ids[-asked.scored :]
    chosen = logprobs.gather(1, targets[:, None])
    return chosen.sum().item(), bool((logprobs.argmax(-1) == targets).all())


def check(decoder: Decoder, asked: list[Asked], batch_tokens: int = 100) -> None:
    found = dict(score(decoder, asked, context=CONTEXT, batch_tokens=batch_tokens))
    assert sorted(found) == list(range(len(asked)))
    for i, one in enumerate(asked):
        logprob, greedy = alone(decoder, one)
        assert found[i].logprob == pytest.approx(logprob, abs=1e-9)
        assert found[i].greedy == greedy


@st.composite
def families_of_texts(draw: st.DrawFn) -> list[Asked]:
    """Texts that are cut out of, or go on from, earlier ones."""
    texts: list[list[int]] = []
    for _ in range(draw(st.integers(1, 12))):
        old = draw(st.sampled_from(texts)) if texts else []
        kept = old[: draw(st.integers(0, len(old)))]
        new = draw(st.lists(st.integers(0, 49), min_size=max(0, 2 - len(kept)), max_size=8))
        texts.append((kept + new)[: CONTEXT + 1])
    return [Asked(ids, draw(st.integers(1, len(ids) - 1))) for ids in texts]


@pytest.mark.parametrize("ramp", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_questions_with_four_endings(family: str, ramp: bool) -> None:
    generator = torch.Generator().manual_seed(5)

    def some(count: int) -> list[int]:
        return torch.randint(0, 50, (count,), generator=generator).tolist()

    asked, example = [], some(6)
    for question in range(3):
        text = (example if question else []) + some(7)
        asked += [Asked(text + ending, len(ending)) for ending in (some(1), some(1), some(4), some(9))]
    check(model(family, ramp=ramp), asked)


@settings(deadline=None, max_examples=25)
@given(families_of_texts(), st.sampled_from([16, 64, 1000]))
def test_whatever_texts_share(asked: list[Asked], batch_tokens: int) -> None:
    check(model("flm"), asked, batch_tokens)


def test_greedy_is_what_the_model_would_write() -> None:
    decoder = model("llama")
    ids = [3, 1, 4]
    for _ in range(5):
        ids.append(int(decoder.next_logits(torch.tensor([ids])).argmax()))
    (found,) = dict(score(decoder, [Asked(ids, 5)], context=CONTEXT, batch_tokens=64)).values()
    assert found.greedy


def test_what_is_shared_is_read_once() -> None:
    """Four endings of one question, two of one token each, and a second question with the same examples."""
    examples, question = list(range(20)), [30, 31, 32]
    asked = [Asked(examples + question + ending, len(ending)) for ending in ([1], [2], [3, 4], [3, 5, 6])]
    asked.append(Asked([*examples, 40, 41, 1], 1))
    (row,) = rows_of(asked, Cost(model("llama")), 1000)
    # the examples, the question, 3 and 5 of the endings, and the other question
    assert len(row.tokens) == 20 + 3 + 2 + 2
    assert len(rows_of(asked, Cost(model("llama")), 24)) == 3


def test_texts_that_share_little_are_not_laid_into_one_row() -> None:
    """A beginning of one token does not pay for a row twice as long."""
    asked = [Asked([1, *range(10 * i + 2, 10 * i + 10), 3], 1) for i in range(4)]
    assert len(rows_of(asked, Cost(model("llama")), 1000)) == 4


def test_batches_hold_no_more_than_their_tokens_and_the_longest_come_first() -> None:
    asked = [Asked([i] * (2 + i % 9), 1) for i in range(40)]
    rows = rows_of(asked, Cost(model("llama")), 1000)
    batches = list(batches_of(rows, 30))
    lengths = [[len(row.tokens) for row in batch] for batch in batches]
    assert [n for batch in lengths for n in batch] == sorted((len(r.tokens) for r in rows), reverse=True)
    assert all(len(batch) * batch[0] <= 30 for batch in lengths)
