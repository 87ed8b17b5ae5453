"""ReCoRD of SuperGLUE (arXiv:1810.12885) as lm-evaluation-harness 0.4.13 asks and scores it.

The harness's own functions import a module that transformers 5 no longer has. A document has the columns of
the set on the hub: `passage`, `query`, `entities`, `answers`.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

Document = dict[str, Any]

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def prompt(doc: Document) -> str:
    """The news text and its highlights as a list."""
    news, *highlights = doc["passage"].strip().split("\n@highlight\n")
    return news + "\n\n" + "".join(f"  - {line}.\n" for line in highlights)


def choices(doc: Document) -> list[str]:
    """The query with each entity in its gap, as the next of the highlights."""
    return [_filled(doc, entity) for entity in _entities(doc)]


def target(doc: Document) -> str:
    """The first of the right choices."""
    return _filled(doc, min(doc["answers"]))


def results(doc: Document, answers: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Exact match and F1 of the likeliest entity with the answer that it is closest to."""
    logprobs = [logprob for logprob, _ in answers]
    guess = words(_entities(doc)[logprobs.index(max(logprobs))])
    right = [words(answer) for answer in doc["answers"]]
    return {"em": float(guess in right), "f1": max(f1(guess, each) for each in right)}


def words(answer: str) -> list[str]:
    """Words as SQuAD compares them (arXiv:1606.05250): lower case, without punctuation and articles."""
    return re.sub(r"\b(a|an|the)\b", " ", answer.lower().translate(_NO_PUNCTUATION)).split()


def f1(guess: Sequence[str], right: Sequence[str]) -> float:
    """Twice the words in common over all words; of nothing with nothing 1."""
    both = (Counter(guess) & Counter(right)).total()
    return 2 * both / (len(guess) + len(right)) if guess or right else 1.0


def _entities(doc: Document) -> list[str]:
    return sorted(set(doc["entities"]))


def _filled(doc: Document, entity: str) -> str:
    return f"  - {doc['query']}".replace("@placeholder", entity)
