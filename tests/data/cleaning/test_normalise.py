import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from growlm.data.cleaning.normalise import normalise
from growlm.errors import DataError


@given(st.text())
def test_normalising_twice_is_normalising_once_and_the_result_is_nfc_without_controls(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert not [c for c in once if unicodedata.category(c) == "Cc" and c not in "\n\t"]


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Cn", "Zl", "Zp"])))
def test_without_control_characters_it_is_nfc_and_nothing_else(text: str) -> None:
    assert normalise(text) == unicodedata.normalize("NFC", text)


def test_what_is_removed_what_becomes_a_line_end_and_what_stays() -> None:
    assert normalise("\ufeffa\r\nb\rc\u2028d\u0085e\ff\0g\x1bh\ufffe") == "a\nb\nc\nd\ne\nfgh"
    assert normalise("a\tb  ｆｕｌｌ ﬁ ² 中文　👨‍👩‍👧 \u200f") == "a\tb  ｆｕｌｌ ﬁ ² 中文　👨‍👩‍👧 \u200f"
    assert normalise("e\u0301") == "é"


MARKS = "\u0301\u0327\u0344\u0f73\u093c\U0001e94a"


def test_of_a_run_of_combining_marks_thirty_stay_and_nfc_takes_no_time() -> None:
    assert normalise("a" + "\u0327\u0308" * 500_000 + "b") == normalise("a" + "\u0327\u0308" * 15 + "b")
    assert normalise("a" + "\0\u0323" * 40) == "\u1ea1" + "\u0323" * 29
    assert normalise("-" * 99 + "é" * 99 + "。" * 99) == "-" * 99 + "é" * 99 + "。" * 99


@given(st.lists(st.tuples(st.sampled_from("a\u0915\u0958ế-"), st.text(MARKS, max_size=70)), max_size=4))
def test_runs_of_marks_are_cut_once_and_for_all(parts: list[tuple[str, str]]) -> None:
    once = normalise("".join(start + marks for start, marks in parts))
    assert normalise(once) == once == unicodedata.normalize("NFC", once)


def test_half_of_a_surrogate_pair_is_refused_with_its_place() -> None:
    with pytest.raises(DataError) as caught:
        normalise("ab\ud83d")
    assert (caught.value.where, caught.value.why) == ("character 2", "\\ud83d alone is no character")
