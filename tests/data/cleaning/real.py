"""Real text and real evaluation sets, where they are there."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from growlm.data.reading.documents import cut

SHARED = Path(__file__).parents[4] / "shared" / "data"


def documents(name: str, every: int = 1) -> Iterator[str]:
    """The documents of a corpus as they are prepared: long ones in pieces; each `every`th."""
    path = SHARED / "corpora" / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip("needs ../shared/data/corpora")
    number = 0
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            for text in cut([json.loads(line)["text"]]):
                number += 1
                if number % every == 0:
                    yield text


def evaluation(*paths: str) -> list[Path]:
    """Files of evaluation sets."""
    if not (SHARED / "eval").exists():
        pytest.skip("needs ../shared/data/eval")
    return [SHARED / "eval" / path for path in paths]
