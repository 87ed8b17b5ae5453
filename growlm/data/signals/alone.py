"""How often the truth of statements can be told without their texts: what a signal should not let happen.

Naive Bayes over the words of a statement, for each label's wordings apart: learnt on the statements about
one half of the texts and tried on those about the other, both ways round. Half of the statements are true,
so 0.5 is chance.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import xxhash

from growlm.data.signals.pairs import Proposition

SAMPLE = 20_000
_WORD = re.compile(r"[^\W\u4e00-\u9fff]+|[\u4e00-\u9fff]")
_Features = frozenset[tuple[str, str]]


def accuracy_alone(propositions: Sequence[Proposition], sample: int = SAMPLE) -> float:
    """Share of `sample` statements, drawn evenly, that are told right; the undecided count half."""
    if len(propositions) > sample:
        propositions = random.Random(0).sample(propositions, sample)
    halves: tuple[list[tuple[_Features, bool]], ...] = ([], [])
    for one in propositions:
        half = xxhash.xxh3_64_intdigest((one.item.text or one.statement).encode()) & 1
        words = frozenset((one.label, word) for word in _WORD.findall(one.statement.lower()))
        halves[half].append((words, one.true))
    right = sum(_right(learnt, tried) for learnt, tried in (halves, halves[::-1]))
    return right / max(1, sum(map(len, halves)))


def _right(learnt: Iterable[tuple[_Features, bool]], tried: Iterable[tuple[_Features, bool]]) -> float:
    counts: tuple[Counter[tuple[str, str]], ...] = (Counter(), Counter())
    for words, true in learnt:
        counts[true].update(words)
    total = 0.0
    for words, true in tried:
        score = sum(math.log((counts[True][word] + 1) / (counts[False][word] + 1)) for word in words)
        total += 0.5 if score == 0 else (score > 0) == true
    return total
