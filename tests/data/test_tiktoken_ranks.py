"""Files of ranks: the same ids as `tiktoken`, by definition and on all text that is here."""

from __future__ import annotations

import base64
import gzip
import json
import sys
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from growlm.data.tiktoken_ranks import load_ranks
from growlm.data.tokenizer import SPECIALS, Tokenizer, pieces
from growlm.errors import DataError
from tests.data.texts import chinese, english

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
RANKS = SHARED / "tokenizer" / "cl100k_base.tiktoken"
EVERY_CHARACTER = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000, 7))))


@pytest.fixture(scope="module")
def cl100k() -> Tokenizer:
    if not RANKS.exists():
        pytest.skip("no file of cl100k ranks here")
    return load_ranks(RANKS)


@pytest.fixture(scope="module")
def reference() -> Any:
    """`tiktoken`'s own cl100k, of the file here instead of one from the network."""
    tiktoken, public = pytest.importorskip("tiktoken"), pytest.importorskip("tiktoken_ext.openai_public")
    if not RANKS.exists():
        pytest.skip("no file of cl100k ranks here")
    lines = (line.split() for line in RANKS.read_bytes().splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(public, "load_tiktoken_bpe", lambda *_, **__: ranks)
        return tiktoken.Encoding(**public.cl100k_base())


def corpus(name: str) -> Iterator[str]:
    path = SHARED / "corpora" / name
    if not path.exists():
        pytest.skip(f"no {name} here")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from (json.loads(line)["text"] for line in file)


def test_cl100k_is_tiktokens(cl100k: Tokenizer, reference: Any):
    texts = [*english(3), *chinese(3), EVERY_CHARACTER, " \t\n\r\n  x\n\n \u3000 \x85\u2028y  ", "123456 ½٣४"]
    texts += [
        "don't DON'T ſ 'ſ 'S 'LL",
        "<|endoftext|>😈[pad]",
        "😈😡👩‍🚀",
        "a" * 3000,
        "汉" * 3000,
        " " * 3000,
    ]
    for text in texts:
        assert cl100k.encode(text) == reference.encode_ordinary(text)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["en-books.jsonl.gz", "zh-modern.jsonl.gz"])
def test_cl100k_is_tiktokens_on_a_whole_corpus(cl100k: Tokenizer, reference: Any, name: str):
    documents = corpus(name)
    while batch := list(islice(documents, 200)):
        expected = reference.encode_ordinary_batch(batch, num_threads=2)
        for text, ids in zip(batch, expected, strict=True):
            assert [i for part in cl100k.encode_batch(list(pieces(text))) for i in part] == ids


def test_cl100k_ids_are_the_ranks(cl100k: Tokenizer):
    ranks = [base64.b64decode(line.split()[0]) for line in RANKS.read_bytes().splitlines()]
    assert (cl100k.vocab_size, cl100k.eos_id) == (len(ranks) + 7, len(ranks))
    for rank in range(0, len(ranks), 97):
        assert cl100k.decode([rank]) == ranks[rank].decode("utf-8", "replace")
    assert cl100k.encode("hello world") == [15339, 1917]
    assert cl100k.special_ids == {name: len(ranks) + i for i, name in enumerate(SPECIALS)}


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
