import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from growlm.data.cleaning.repetition import duplicate_share, repeated_lines, top_share
from growlm.data.cleaning.units import ngrams, prefix_sums, spans, units

TEXT = "The  river, and THE river:\n2024 is a year. 天地玄黄，宇宙x洪荒 天地 don't"
WORDS = [
    "the",
    "river",
    "and",
    "the",
    "river",
    "2024",
    "is",
    "a",
    "year",
    *"天地玄黄宇宙",
    "x",
    *"洪荒天地",
    "don",
    "t",
]


def test_units_are_words_in_lower_case_and_single_han_characters() -> None:
    found = units(TEXT)
    assert [TEXT.lower()[a:b] for a, b in zip(found.starts, found.ends, strict=True)] == WORDS
    assert found.alone.tolist() == [word > "一" for word in WORDS]
    assert found.alphabetic.tolist() == [word != "2024" for word in WORDS]


def test_units_have_equal_hashes_where_they_are_equal_and_nowhere_else() -> None:
    hashes = units(TEXT).hashes
    assert [[a == b for b in WORDS] for a in WORDS] == (hashes[:, None] == hashes).tolist()


@given(
    st.lists(st.sampled_from(["a", "bc", "天", "é2", "Ω"]), max_size=30), st.sampled_from([" ", ", ", "\n"])
)
def test_only_the_units_count(words: list[str], separator: str) -> None:
    """Against the definition: word characters, of which Han characters stand alone."""
    text = separator.join(words)
    expected = re.findall(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+", text.lower())
    assert units(text).hashes.tolist() == [int(units(word).hashes[0]) for word in expected]


def test_a_long_text_has_the_units_of_its_parts() -> None:
    parts = [f"word{i} 宇宙 {'x' * (i % 7)}." for i in range(40_000)]
    whole = np.concatenate([units(part).hashes for part in parts[:500]])
    found = units(" ".join(parts))
    np.testing.assert_array_equal(found.hashes[: len(whole)], whole)
    assert (found.starts < found.ends).all()
    assert (found.ends[:-1] <= found.starts[1:]).all()


def test_hashes_of_runs_do_not_depend_on_where_they_stand() -> None:
    hashes = np.arange(20, dtype=np.uint64) % 5
    runs = ngrams(hashes, 3)
    assert len(np.unique(runs)) == 5
    np.testing.assert_array_equal(runs[:5], runs[5:10])
    starts = np.array([7, 2])
    np.testing.assert_array_equal(spans(prefix_sums(hashes), starts, starts + 3), runs[starts])
    assert not len(ngrams(hashes[:2], 3))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 4))
def test_shares_of_repeated_runs_are_those_of_the_definition(values: list[int], n: int) -> None:
    lengths = np.array([value + 1 for value in values])
    runs = [tuple(values[i : i + n]) for i in range(len(values) - n + 1)]
    again = {j for i, run in enumerate(runs) if run in runs[:i] for j in range(i, i + n)}
    tops = [
        runs.count(run) * sum(v + 1 for v in run)
        for run in runs
        if runs.count(run) == max(map(runs.count, runs))
    ]
    hashes = np.array(values, np.uint64)
    assert np.isclose(
        duplicate_share(hashes, lengths, n), sum(lengths[list(again)]) / lengths.sum() if again else 0
    )
    top = top_share(hashes, lengths, n) * lengths.sum()
    assert np.isclose(top, 0) if len(set(runs)) == len(runs) else np.isclose(top, tops).any()


def test_share_of_repeated_lines() -> None:
    assert repeated_lines(["abcd", "ef", "abcd", "abcd"]) == 8 / 14
    assert repeated_lines([]) == 0
