"""A wording says nothing about the truth, whatever the shares of the labels; nor do the words of an item."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from growlm.data.signals.alone import accuracy_alone
from growlm.data.signals.items import Item
from growlm.data.signals.pairs import Proposition, propositions
from growlm.data.signals.templates import Library, Template
from growlm.errors import DataError
from tests.data.signals.rows import NLI, NOUNS


def of(task: str) -> Template:
    return Library().template(task)


def items_of(template: Template, counts: dict[str, int], seed: int = 0) -> list[Item]:
    """Items with these labels, whose words are drawn without regard to them."""
    draw = random.Random(seed)
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [
        Item(str(i), "", f"Text {i}.", {field: draw.choice(NOUNS) for field in template.paths}, label)
        for i, label in enumerate(labels)
    ]


def chosen(count: int, seed: int = 0) -> list[Item]:
    draw = random.Random(seed)
    picks = [draw.sample(NOUNS, 4) for _ in range(count)]
    return [
        Item(str(i), "", f"Box {i}?", {"question": f"Box {i}?"}, pick[0], tuple(pick[1:]))
        for i, pick in enumerate(picks)
    ]


def counts_by_wording(made: Sequence[Proposition]) -> dict[str, list[int]]:
    """[false, true] of each wording."""
    counts: dict[str, list[int]] = {}
    for one in made:
        counts.setdefault(one.wording.source, [0, 0])[one.true] += 1
    return counts


@pytest.mark.parametrize("pairs", [1, 2, 9])
@pytest.mark.parametrize(
    "counts", [(30, 30, 30), (50, 7, 3), (5, 90, 1), (1, 1, 0), (40, 39, 1), (1, 100, 0), (33, 32, 31)]
)
def test_every_wording_is_as_often_true_as_false(counts: tuple[int, ...], pairs: int):
    template = of("ocnli")
    items = items_of(template, dict(zip(NLI, counts, strict=True)))
    made = list(propositions(template, items, pairs, random.Random(1)))
    assert made
    assert all(false == true for false, true in counts_by_wording(made).values())
    for one in made:
        assert one.true == (one.label == one.item.answer)
    statements = Counter((one.item.where, one.statement) for one in made)
    assert max(statements.values()) == 1
    # nothing is left out but what a label has more than all others together
    lost = max(0, 2 * max(counts) - sum(counts))
    assert len({one.item.where for one in made}) == sum(counts) - lost
    per_item = Counter((one.item.where, one.true) for one in made)
    assert set(per_item.values()) == {min(pairs, 3)}


@pytest.mark.parametrize("pairs", [1, 3])
def test_a_right_and_a_wrong_choice_share_their_wording(pairs: int):
    items = chosen(25)
    made = list(propositions(of("mmlu"), items, pairs, random.Random(1)))
    assert all(false == true for false, true in counts_by_wording(made).values())
    assert len(made) == 2 * pairs * len(items)
    for one in made:
        said = [choice for choice in (one.item.answer, *one.item.wrong) if one.statement.endswith(choice)]
        assert said == [one.item.answer] if one.true else said[0] in one.item.wrong


@pytest.mark.parametrize("counts", [(20, 20), (7, 60), (60, 1)])
def test_statements_of_their_own_truth_are_cut_to_as_many_false_as_true(counts: tuple[int, int]):
    template = of("multirc")
    items = items_of(template, dict(zip(("true", "false"), counts, strict=True)))
    made = list(propositions(template, items, 2, random.Random(1)))
    assert all(false == true for false, true in counts_by_wording(made).values())
    assert len(made) == 2 * 2 * min(counts)
    assert all(one.true == (one.item.answer == "true") for one in made)


@pytest.mark.parametrize("task", ["ocnli", "paraphrase", "statement", "mmlu"])
def test_words_of_a_statement_alone_are_at_chance(task: str):
    template = of(task)
    if task == "mmlu":
        items = chosen(3000)
    else:
        labels = list(dict.fromkeys(template.labels.values()))
        items = items_of(template, dict(zip(labels, (2400, 1100, 700), strict=False)))
    made = list(propositions(template, items, 1, random.Random(1)))
    assert accuracy_alone(made) == pytest.approx(0.5, abs=0.05)
    assert accuracy_alone(made, sample=1500) == pytest.approx(0.5, abs=0.08)


def test_words_that_tell_the_truth_are_measured():
    template = of("rte")
    tell = {"entailment": "somebody", "not_entailment": "nobody"}
    items = [
        item._replace(
            values={**item.values, "hypothesis": f"{tell[item.answer]} {item.values['hypothesis']}"}
        )
        for item in items_of(template, {"entailment": 300, "not_entailment": 300})
    ]
    made = list(propositions(template, items, 1, random.Random(1)))
    assert accuracy_alone(made) > 0.95


def test_one_label_teaches_nothing():
    with pytest.raises(DataError, match="one label: entailment"):
        list(propositions(of("rte"), items_of(of("rte"), {"entailment": 9}), 1, random.Random(1)))
