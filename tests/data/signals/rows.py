"""Small labelled files for the tests of teacher signals."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from growlm.data.signals.make import Summary, make_signals

Row = dict[str, Any]
NOUNS = ("river", "stone", "lamp", "horse", "letter", "garden", "engine", "window")
NLI = ("entailment", "neutral", "contradiction")


def write_rows(path: Path, rows: Iterable[Row]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def nli_rows(counts: Sequence[int], labels: Sequence[str] = NLI, seed: int = 0) -> list[Row]:
    """So many items of each label, whose words say nothing about it."""
    draw = random.Random(seed)
    drawn = [label for label, count in zip(labels, counts, strict=True) for _ in range(count)]
    draw.shuffle(drawn)
    return [
        {
            "premise": f"Number {i}: a {draw.choice(NOUNS)} by a {draw.choice(NOUNS)}.",
            "hypothesis": f"There is a {draw.choice(NOUNS)}.",
            "label": label,
        }
        for i, label in enumerate(drawn)
    ]


def choice_rows(count: int, seed: int = 0) -> list[Row]:
    draw = random.Random(seed)
    return [
        {"question": f"What is in box {i}?", "choices": draw.sample(NOUNS, 4), "answer": draw.randrange(4)}
        for i in range(count)
    ]


def made(folder: Path, task: str, rows: Iterable[Row], **options: Any) -> tuple[list[Row], Summary]:
    """The propositions of these rows, and the summary."""
    path = write_rows(folder / f"{task}.jsonl", rows)
    summary = make_signals(folder / "out.jsonl", {task: [path]}, **options)
    return [json.loads(line) for line in (folder / "out.jsonl").read_text("utf-8").splitlines()], summary
