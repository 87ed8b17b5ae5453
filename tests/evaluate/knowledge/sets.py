"""Small sets in the formats of published files, and a model that knows their answers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from growlm.inference.requests import Choice, Completion, Failed, Likelihood, Prompt

Rows = list[dict[str, Any]]

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "eval"

ARC: Rows = [
    {"id": f"A_{i}", "query": f"Question: What is {i} and one?\nAnswer:", "choices": choices, "gold": i % 3}
    for i, choices in enumerate([["one", "two", "three"], ["ten", "two", "six", "four"], list("abcde")] * 2)
]
"""With three, four and five choices; the answers are those at 0, 1, 2."""

HELLASWAG: Rows = [
    {
        "activity_label": "Cooking",
        "ctx_a": f"A man cuts {i} onions.",
        "ctx_b": "he",
        "endings": [f"{verb} {i} of them [title] Now." for verb in ("eats", "flies", "sings", "sleeps")],
        "label": str(i % 4),
    }
    for i in range(6)
]
TRUTHFULQA: Rows = [
    {
        "question": f"How many legs have {i} cats?",
        "mc1_targets": {"None.": 0, f"They have {4 * i}.": 1, "A thousand.": 0},
        "mc2_targets": {f"They have {4 * i}.": 1, "Four each.": 1, "None.": 0, "A thousand.": 0},
    }
    for i in range(5)
]
MULTIRC: Rows = [
    {
        "idx": 7,
        "passage": {
            "text": "A dog saw a cat.",
            "questions": [
                {
                    "idx": 0,
                    "question": "Who saw whom?",
                    "answers": [
                        {"idx": 0, "text": "a dog", "label": 1},
                        {"idx": 1, "text": "a cow", "label": 0},
                    ],
                },
                {"idx": 1, "question": "Where?", "answers": [{"idx": 2, "text": "a park", "label": 0}]},
            ],
        },
    }
]
RECORD: Rows = [
    {
        "passage": {"text": "Ann met Bob.", "entities": [{"start": 0, "end": 2}, {"start": 8, "end": 10}]},
        "qas": [{"query": "@placeholder left", "answers": [{"text": "Bob", "start": 8, "end": 10}]}],
    }
]
_SPANS = {"span1_text": "王五", "span1_index": 0, "span2_text": "他", "span2_index": 4}
CLUE: dict[str, Rows] = {
    "afqmc-dev": [{"sentence1": "怎么还款", "sentence2": "还款的方法", "label": "1"}],
    "csl-dev": [{"abst": "研究土体的结构。", "keyword": ["土体", "结构"], "label": "1"}],
    "ocnli-dev": [
        {"sentence1": "他走了", "sentence2": "他开心", "label": "neutral"},
        {"sentence1": "他走了", "sentence2": "他来过", "label": "-"},
    ],
    "cluewsc2020-dev": [{"text": "王五说，他要走。", "target": _SPANS, "label": "true"}],
}


def exam(subjects: Collection[str], count: int = 3, **more: Any) -> Rows:
    """Questions with the answer B, in the columns of MMLU."""
    return [
        {"subject": s, "question": f"{s} {i}?", "choices": ["w", "x", "y", "z"], "answer": 1, **more}
        for s in subjects
        for i in range(count)
    ]


def write(path: Path, rows: Rows) -> Path:
    """As JSON lines, compressed if the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


class Knowing:
    """A `Model` to which the continuations in `right` are certain and all others out of the question."""

    context, identity = 1000, "knowing"

    def __init__(self, right: Collection[str], failing: Collection[str] = ()) -> None:
        self.right, self.failing, self.asked = set(right), failing, 0

    def likelihoods(self, requests: Sequence[Choice]) -> Iterator[tuple[int, Likelihood | Failed]]:
        self.asked += len(requests)
        for index, request in reversed(list(enumerate(requests))):
            if any(text in request.context for text in self.failing):
                yield index, Failed("no answer")
            else:
                known = request.continuation in self.right
                yield index, Likelihood(0.0 if known else -1000.0 - len(request.continuation) ** 2, known, 3)

    def completions(self, requests: Sequence[Prompt]) -> Iterator[tuple[int, Completion | Failed]]:
        yield from ((i, Failed("no answer")) for i, _ in enumerate(requests))
