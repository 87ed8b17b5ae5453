"""Examples in units: each whole, none lost but those that fit nowhere, and counted as they are read."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from growlm.data.manifest import MARK
from growlm.data.packing import pack

EOS = 9
example = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=12)


def stored(examples: list[list[tuple[int, bool]]]) -> np.ndarray:
    """Their stream: the first token of each unmarked, the end of each learnt as its last token is."""
    ids: list[int] = []
    for tokens in examples:
        ids += [token | (MARK if marked and i else 0) for i, (token, marked) in enumerate(tokens)]
        ids.append(EOS | (MARK if tokens[-1][1] else 0))
    return np.array(ids, np.uint32)


@given(st.lists(example, max_size=30), st.integers(1, 40), st.integers(1, 50))
def test_every_example_that_fits_is_whole_in_one_unit(
    examples: list[list[tuple[int, bool]]], unit: int, block: int
):
    stream = stored(examples)
    blocks = [stream[start : start + block] for start in range(0, len(stream), block)]
    packing = pack(blocks, EOS, unit)
    expected = [tuple(stored([one]).tolist()) for one in examples if len(one) + 1 <= unit + 1]
    found: list[tuple[int, ...]] = []
    for start, tokens, learnt in zip(packing.start, packing.tokens, packing.learnt, strict=True):
        assert 0 < tokens <= unit + 1
        inside = stream[start : start + tokens]
        assert learnt == (inside[1:] >= MARK).sum()
        ends = np.flatnonzero((inside & np.uint32(MARK - 1)) == EOS)
        found += [tuple(part.tolist()) for part in np.split(inside, ends + 1)[:-1]]
        assert ends[-1] == tokens - 1
    assert found == expected
    assert packing.examples == len(expected)
    assert packing.too_long == len(examples) - len(expected)


@given(st.lists(example, min_size=2, max_size=30), st.integers(13, 40))
def test_no_unit_has_room_for_the_example_behind_it(examples: list[list[tuple[int, bool]]], unit: int):
    packing = pack([stored(examples)], EOS, unit)
    lengths = [len(one) + 1 for one in examples]
    starts = np.cumsum([0, *lengths]).tolist()
    for start, tokens in zip(packing.start[:-1].tolist(), packing.tokens[:-1].tolist(), strict=True):
        behind = starts.index(start + tokens)
        assert tokens + lengths[behind] > unit + 1
