from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from growlm.data.pipeline import copies


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=30), st.randoms())
def test_of_equal_keys_the_smallest_number_stays(pairs: list[tuple[int, int]], draw):
    numbers = list(range(len(pairs)))
    draw.shuffle(numbers)
    by_number = dict(zip(numbers, pairs, strict=True))
    expected = [n for n in sorted(numbers) if by_number[n] in [by_number[m] for m in range(n)]]
    keys, also = (np.array([pair[i] for pair in pairs], np.uint64) for i in (0, 1))
    assert copies.repeats(keys, also, np.array(numbers, np.int64)).tolist() == expected


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=30))
def test_of_equal_keys_with_different_values_none_stays(pairs: list[tuple[int, int]]):
    values = {key: {value for other, value in pairs if other == key} for key, _ in pairs}
    expected = [number for number, (key, _) in enumerate(pairs) if len(values[key]) > 1]
    keys, also = (np.array([pair[i] for pair in pairs], np.uint64) for i in (0, 1))
    assert copies.contradictions(keys, also, np.arange(len(pairs))).tolist() == expected
