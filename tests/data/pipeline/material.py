"""Input of every kind, for the tests of the pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from growlm.data.prepare import Cleaning, SourceOptions
from tests.data.texts import chinese, english, write_jsonl


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def propositions(count: int) -> list[dict[str, Any]]:
    """Two about each text, one true and one false."""
    return [
        {"text": text, "proposition": f"This is story {number}.", "signal": number == index}
        for index, text in enumerate(english(count, 30, seed=5))
        for number in (index, index + 1)
    ]


def mixed(folder: Path) -> tuple[dict[str, SourceOptions], dict[str, Any]]:
    """Sources and options of `prepare`: three kinds, copies, near copies, bad rows; in several parts."""
    if not folder.exists():
        folder.mkdir()
        texts = english(60, 90)
        near = texts[7].replace("mountain", "hill", 1) + " And so on."
        write_jsonl(folder / "en.jsonl", [*texts, *texts[:9], near])
        with (folder / "en.jsonl").open("a") as file:
            file.write('{"text": 1}\n{broken\n')
        write_jsonl(folder / "zh.jsonl", [*chinese(40), texts[3]])
        write_rows(folder / "signals.jsonl", propositions(20))
        answers = [
            {"prompt": f"Say {word}", "response": word, "license": "CC0"} for word in "abcdefghijklmno"
        ]
        write_rows(folder / "chat.jsonl", answers)
    sources = {
        "en": SourceOptions([folder / "en.jsonl"], license="own"),
        "zh": SourceOptions([folder / "zh.jsonl"]),
        "rte": SourceOptions([folder / "signals.jsonl"], "signals"),
        "chat": SourceOptions([folder / "chat.jsonl"], "instructions"),
    }
    options = {
        "vocab_size": 320,
        "validation_share": 0.1,
        "shard_bytes": 3000,
        "part_bytes": 8000,
        "cleaning": Cleaning(near_duplicates=True),
    }
    return sources, options
