import random

import numpy as np
import pytest

from growlm.data.cleaning.near import BANDS, SHINGLE, band_keys, collision_probability
from growlm.data.cleaning.units import LONG_TEXT
from tests.data.texts import chinese, english


def pair(shared: int, own: int, draw: random.Random) -> tuple[str, str, float]:
    """Two texts of random words and the Jaccard similarity of their shingles."""
    words = [f"w{draw.getrandbits(60):x}" for _ in range(shared + 2 * own)]
    first, second = words[: shared + own], words[:shared] + words[shared + own :]
    sets = [
        {tuple(text[i : i + SHINGLE]) for i in range(len(text) - SHINGLE + 1)} for text in (first, second)
    ]
    return " ".join(first), " ".join(second), len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@pytest.mark.parametrize(("shared", "own"), [(60, 40), (80, 20), (80, 12), (90, 10), (95, 4)])
def test_texts_collide_as_often_as_the_formula_says(shared: int, own: int) -> None:
    """Within five standard deviations of the binomial: the draw is fixed, so it cannot flake."""
    draw, trials = random.Random(shared), 400
    collisions, similarity = 0, 0.0
    for _ in range(trials):
        first, second, similarity = pair(shared, own, draw)
        collisions += bool((band_keys(first) == band_keys(second)).any())
    expected = 1 - (1 - similarity**8) ** 14
    assert collision_probability(similarity) == pytest.approx(expected)
    assert abs(collisions / trials - expected) <= 5 * np.sqrt(expected * (1 - expected) / trials) + 1 / trials


def test_texts_without_a_common_shingle_share_no_key() -> None:
    keys = np.stack([band_keys(text) for text in [*english(100), *chinese(100)]])
    assert all(len(np.unique(keys[:, band])) == 200 for band in range(BANDS))


@pytest.mark.parametrize("text", [english(1)[0], chinese(1)[0]])
def test_case_white_space_and_punctuation_do_not_count(text: str) -> None:
    other = "\n\n" + text.upper().replace(". ", " -- ").replace("。", "！ ").replace(" ", "  \t") + " ..."
    np.testing.assert_array_equal(band_keys(text), band_keys(other))


def test_texts_of_few_or_no_words_are_like_equal_ones_only() -> None:
    texts = ["", "!", "?!", "one", "one two", "two one", "天", "天地", "地天"]
    keys = [band_keys(text) for text in texts]
    assert all((a == b).any() == (i == j) for i, a in enumerate(keys) for j, b in enumerate(keys))
    assert keys[0].shape == (BANDS,)
    assert keys[0].dtype == np.uint64


def test_order_of_shingles_and_repeats_do_not_count() -> None:
    """Similarity is of sets: a text twice over has only the shingles across the seam more."""
    text = english(1, words=2000)[0]
    assert (band_keys(text) == band_keys(text + " " + text)).mean() > 0.5


def test_a_long_text_is_like_itself_with_a_new_end() -> None:
    text = " ".join(english(1, words=300_000))
    assert len(text) > LONG_TEXT
    assert (band_keys(text) == band_keys(text + " The end, at last, of it all.")).all()
