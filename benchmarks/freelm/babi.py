"""bAbI's first task (1502.05698) as labelled rows: each question with the story before it.

python benchmarks/freelm/babi.py qa1_single-supporting-fact_train.txt > babi.jsonl
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LINE = re.compile(r"(\d+) (.*)")


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Story, person, all places of the file, and the number of the right one."""
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


if __name__ == "__main__":
    for row in rows(Path(sys.argv[1])):
        print(json.dumps(row, ensure_ascii=False))
