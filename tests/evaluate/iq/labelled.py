"""Made-up files of the sets that symbolic mapping is made from: each text says its label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SETS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "boolq": ("val", (True, False)),
    "wic": ("val", (True, False)),
    "rte": ("val", ("entailment", "not_entailment")),
    "wsc": ("val", (True, False)),
    "afqmc": ("dev", ("0", "1")),
    "csl": ("dev", ("0", "1")),
    "ocnli": ("dev", ("neutral", "entailment", "contradiction", "-")),
    "cluewsc": ("dev", ("true", "false")),
}


def write_sets(folder: Path, rows: int = 60) -> Path:
    """All eight, with a train split of every second one."""
    folder.mkdir(exist_ok=True)
    for place, (name, (split, labels)) in enumerate(SETS.items()):
        write_rows(folder / f"{name}-{split}.jsonl", name, labels, rows)
        if place % 2:
            write_rows(folder / f"{name}-train.jsonl", name, labels, 64)
    return folder


def write_rows(path: Path, name: str, labels: tuple[Any, ...], rows: int) -> None:
    """Rows with the labels in turn."""
    made = [_row(name, f"{path.stem} {n} [{label!s}]", label) for n, label in _turns(labels, rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in made), "utf-8")


def _turns(labels: tuple[Any, ...], rows: int) -> list[tuple[int, Any]]:
    return [(n, labels[n * 7 % len(labels)]) for n in range(rows)]


def _row(name: str, text: str, label: Any) -> dict[str, Any]:
    span = {"span1_text": "A", "span1_index": 0, "span2_text": text.split(" ")[1], "span2_index": 1}
    if name == "cluewsc":
        span["span2_index"] = text.index(" ") + 1
    return {
        "label": label,
        "text": text,
        "target": span,
        "word": "word",
        "abst": text,
        "keyword": ["a", "b"],
        **dict.fromkeys(("passage", "premise", "sentence1"), "some text"),
        **dict.fromkeys(("question", "hypothesis", "sentence2"), text),
    }
