"""Rows of every known format become the columns that the harness's tasks read."""

from __future__ import annotations

from typing import Any

import pytest

from growlm.evaluate.knowledge import chinese, english
from tests.evaluate.knowledge.sets import ARC, MULTIRC, TRUTHFULQA

Row = dict[str, Any]


def test_arc_is_the_same_in_three_formats() -> None:
    hub = {
        "id": "A_1",
        "question": "What is 1 and one?",
        "choices": {"text": ["ten", "two", "six", "four"], "label": list("ABCD")},
        "answerKey": "B",
    }
    listed = [{"text": t, "label": n} for t, n in zip(hub["choices"]["text"], "ABCD", strict=True)]
    published = {**hub, "question": {"stem": hub["question"], "choices": listed}}
    del published["choices"]
    assert english.arc(hub) == english.arc(published) == english.arc(ARC[1]) == hub
    assert [len(english.arc(row)["choices"]["text"]) for row in ARC[:3]] == [3, 4, 5]


def test_truthfulqa_has_its_one_right_answer_first() -> None:
    found = english.truthfulqa(TRUTHFULQA[2])
    assert found["mc1_targets"] == {"choices": ["They have 8.", "None.", "A thousand."], "labels": [1, 0, 0]}
    assert found["mc2_targets"]["labels"] == [1, 1, 0, 0]
    assert english.truthfulqa(found) == found


def test_multirc_is_one_row_for_each_answer() -> None:
    found = english.multirc(MULTIRC[0])
    assert [(row["question"], row["answer"], row["label"]) for row in found] == [
        ("Who saw whom?", "a dog", 1),
        ("Who saw whom?", "a cow", 0),
        ("Where?", "a park", 0),
    ]
    assert [row for each in found for row in english.multirc(each)] == found


def test_labels_are_names_numbers_or_truth() -> None:
    passage = {"question": "q", "passage": "p"}
    for told in (True, 1, "1", "true", "True"):
        assert english.boolq({**passage, "label": told})["label"] == 1
    pair = {"premise": "p", "hypothesis": "h"}
    assert english.cb({**pair, "label": "neutral"})["label"] == 2
    assert english.rte({**pair, "label": "not_entailment"})["label"] == 1
    two = {"sentence1": "a", "sentence2": "b"}
    assert chinese.afqmc({**two, "label": "1"})[0]["label"] == 1
    assert chinese.ocnli({**two, "label": "-"}) == []
    assert chinese.ocnli({**two, "label": "entailment"})[0]["label"] == 1
    span = {"span1_text": "a", "span2_text": "b", "span1_index": 0, "span2_index": 1}
    assert [
        chinese.cluewsc({"text": "ab", "target": span, "label": t})[0]["label"] for t in ("true", "false")
    ] == [
        0,
        1,
    ]


def test_wsc_spans_are_mended_as_in_the_fixed_version() -> None:
    row = {
        "text": "The path to the lake was blocked.",
        "target": {"span1_index": 3, "span1_text": "The lake", "span2_index": 1, "span2_text": "path"},
        "label": False,
    }
    found = english.wsc(row)
    assert (found["span1_text"], found["span2_text"]) == ("the lake", "path")


def test_record_is_one_row_for_each_query() -> None:
    """Entities are found by their places; of a row of the hub by their names."""
    passage = "Ann met Bob.\n@highlight\nBob ran"
    entities = [{"start": 0, "end": 2}, {"start": 8, "end": 10}]
    query = {"query": "@placeholder left", "answers": [{"text": "Bob", "start": 8, "end": 10}]}
    (found,) = english.record({"passage": {"text": passage, "entities": entities}, "qas": [query]})
    assert (found["entities"], found["answers"]) == (["Ann", "Bob"], ["Bob"])
    hub = {"passage": passage, "query": query["query"], "entities": ["Bob", "Ann", "Bob"], "answers": ["Bob"]}
    assert english.record(hub) == [found]


@pytest.mark.parametrize(
    ("convert", "row"),
    [
        (english.arc, {**ARC[0], "gold": 3}),
        (english.arc, {"id": "x", "query": "q"}),
        (
            english.hellaswag,
            {"activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": ["d"], "label": "0"},
        ),
        (english.mmlu, {"question": "q", "choices": ["a", "b", "c", "d"], "answer": "E"}),
        (english.mmlu, {"question": None, "choices": ["a", "b", "c", "d"], "answer": "A"}),
        (english.truthfulqa, {**TRUTHFULQA[0], "mc1_targets": {"a": 1, "b": 1}}),
        (chinese.csl, {"abst": "a", "keyword": "b", "label": "1"}),
        (chinese.afqmc, {"sentence1": "a", "sentence2": "b", "label": ""}),
    ],
)
def test_what_a_row_cannot_be(convert: Any, row: Row) -> None:
    with pytest.raises((KeyError, ValueError, TypeError)):
        convert(row)
