from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from growlm.data.pipeline import copies
from growlm.data.prepare import prepare
from tests.data.pipeline.material import mixed
from tests.data.texts import folder_bytes


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=30), st.randoms())
def test_of_equal_keys_the_smallest_number_stays(pairs: list[tuple[int, int]], draw):
    numbers = list(range(len(pairs)))
    draw.shuffle(numbers)
    by_number = dict(zip(numbers, pairs, strict=True))
    expected = [n for n in sorted(numbers) if by_number[n] in [by_number[m] for m in range(n)]]
    keys, also = (np.array([pair[i] for pair in pairs], np.uint64) for i in (0, 1))
    assert copies.repeats(keys, also, np.array(numbers, np.int64)).tolist() == expected


def test_many_buckets_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sources, options = mixed(tmp_path / "in")
    prepare(tmp_path / "one", sources, **options)
    monkeypatch.setattr(copies, "BUCKET_KEYS", 80)
    prepare(tmp_path / "many", sources, **options)
    assert folder_bytes(tmp_path / "many") == folder_bytes(tmp_path / "one")
