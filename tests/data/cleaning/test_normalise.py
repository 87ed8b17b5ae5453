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


def test_half_of_a_surrogate_pair_is_refused_with_its_place() -> None:
    with pytest.raises(DataError) as caught:
        normalise("ab\ud83d")
    assert (caught.value.where, caught.value.why) == ("character 2", "\\ud83d alone is no character")
