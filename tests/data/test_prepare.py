from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from growlm.data.dataset import TokenDataset
from growlm.data.prepare import prepare
from growlm.data.reading.text import CUT_CHARS
from growlm.data.tokenizer import Tokenizer
from tests.data.texts import chinese, english, folder_bytes, write_jsonl


def stored_documents(folder: Path, source: str, split: str) -> list[str]:
    """The documents of a stream, decoded."""
    dataset = TokenDataset.open(folder)
    tokenizer = Tokenizer.load(dataset.tokenizer_path)
    ids = dataset.read(source, split, 0, dataset.tokens(source, split)).tolist()
    assert ids[-1] == tokenizer.eos_id
    return tokenizer.decode(ids).split("<|endoftext|>")[:-1]


def write_kind(folder: Path, kind: str, texts: list[str]) -> Path:
    if kind == "jsonl.gz":
        path = folder / "a.jsonl.gz"
        path.write_bytes(gzip.compress(write_jsonl(folder / "x.jsonl", texts).read_bytes()))
        (folder / "x.jsonl").unlink()
    elif kind == "jsonl.zst":
        zstandard = pytest.importorskip("zstandard")
        path = folder / "a.jsonl.zst"
        half = len(texts) // 2  # two frames, as tools that append write them
        frames = [write_jsonl(folder / "x.jsonl", part).read_bytes() for part in (texts[:half], texts[half:])]
        path.write_bytes(b"".join(map(zstandard.ZstdCompressor().compress, frames)))
        (folder / "x.jsonl").unlink()
    elif kind == "parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        path = folder / "a.parquet"
        parquet.write_table(pyarrow.table({"id": list(range(len(texts))), "text": texts}), path)
    elif kind == "txt.gz":
        path = folder / "texts"
        path.mkdir()
        for i, text in enumerate(texts):
            (path / f"{i:03}.txt.gz").write_bytes(gzip.compress(text.encode()))
    elif kind == "glob":
        path = folder / "t*" / "*.md"
        (folder / "texts").mkdir()
        for i, text in enumerate(texts):
            (folder / "texts" / f"{i:03}.md").write_text("\ufeff" + text, "utf-8")
    else:
        path = write_jsonl(folder / "a.jsonl", texts)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet", "txt.gz", "glob"])
def test_every_document_comes_back_once_from_every_kind_of_file(tmp_path: Path, kind: str):
    texts = english(12, 30) + chinese(8, 40)
    path = write_kind(tmp_path, kind, texts)
    prepare(tmp_path / "out", {"mix": [path]}, vocab_size=300, validation_share=0.2)
    train, valid = (stored_documents(tmp_path / "out", "mix", split) for split in ("train", "valid"))
    assert sorted(train + valid) == sorted(texts)
    assert train == [text for text in texts if text in train], "documents keep their order"
    assert valid


def test_same_input_gives_same_bytes(tmp_path: Path):
    en = write_jsonl(tmp_path / "en.jsonl", english(30))
    zh = write_jsonl(tmp_path / "zh.jsonl", chinese(20))
    for name in ("one", "two"):
        prepare(tmp_path / name, {"en": [en], "zh": [zh]}, vocab_size=350)
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "two")


def test_a_document_keeps_its_split_when_others_come_and_go(tmp_path: Path):
    texts = english(80, 30)
    for name, part in (("all", texts), ("some", texts[20:60])):
        path = write_jsonl(tmp_path / f"{name}.jsonl", part)
        prepare(tmp_path / name, {"en": [path]}, vocab_size=300, validation_share=0.2)
    valid = stored_documents(tmp_path / "all", "en", "valid")
    assert stored_documents(tmp_path / "some", "en", "valid") == [t for t in valid if t in texts[20:60]]
    assert 4 < len(valid) < 32


def test_copies_are_left_out_within_and_between_sources(tmp_path: Path):
    texts = english(20, 30)
    a = write_jsonl(tmp_path / "a.jsonl", [*texts, *texts[:5], "", " \n"])
    b = write_jsonl(tmp_path / "b.jsonl", [*texts[:3], *chinese(10, 30)])
    manifest = prepare(tmp_path / "out", {"a": [a], "b": [b]}, vocab_size=300)
    assert (manifest.sources["a"].duplicates, manifest.sources["a"].empty) == (5, 2)
    assert manifest.sources["b"].duplicates == 3
    everything = [
        t for s in "ab" for split in ("train", "valid") for t in stored_documents(tmp_path / "out", s, split)
    ]
    assert sorted(everything) == sorted(texts + chinese(10, 30))


@pytest.mark.parametrize(
    "text", ["\n\n".join(english(5)), "word " * 900, "字" * 500], ids=["book", "line", "word"]
)
def test_a_single_document_is_cut_so_that_it_can_be_split(tmp_path: Path, text: str):
    (tmp_path / "book.txt").write_text(text, "utf-8")
    manifest = prepare(tmp_path / "out", {"book": [tmp_path / "book.txt"]}, vocab_size=300)
    splits = manifest.sources["book"].splits
    assert splits["valid"].documents == 1
    stored = [t for split in splits for t in stored_documents(tmp_path / "out", "book", split)]
    if manifest.sources["book"].duplicates == 0:
        assert sorted("".join(stored)) == sorted(text)


def test_long_text_files_are_cut_at_paragraphs(tmp_path: Path):
    texts = english(400)
    (tmp_path / "long.md").write_text("\n\n".join(texts), "utf-8")
    (tmp_path / "short.md").write_text("short", "utf-8")
    manifest = prepare(tmp_path / "out", {"en": [tmp_path]}, vocab_size=300)
    stored = [t for split in ("train", "valid") for t in stored_documents(tmp_path / "out", "en", split)]
    assert manifest.text_cut_chars == CUT_CHARS
    assert "short" in stored
    long = [text for text in stored if text != "short"]
    assert len(long) > 2
    assert sorted("".join(long)) == sorted("\n\n".join(texts))
    assert all(text.endswith(("\n\n", texts[-1])) and len(text) <= 2 * CUT_CHARS for text in long)


def test_spelled_out_special_tokens_stay_text(tmp_path: Path):
    texts = [f"{text} <|endoftext|> {text}" for text in english(5, 30)]
    prepare(tmp_path / "out", {"en": [write_jsonl(tmp_path / "a.jsonl", texts)]}, vocab_size=300)
    dataset = TokenDataset.open(tmp_path / "out")
    ids = np.concatenate([dataset.read("en", s, 0, dataset.tokens("en", s)) for s in ("train", "valid")])
    assert (ids == dataset.manifest.tokenizer.eos_id).sum() == 5


@pytest.mark.slow
def test_one_line_of_50_megabytes_takes_bounded_memory(tmp_path: Path):
    line = json.dumps({"text": "一行 of text without an end, 没有尽头 " * 1_140_000}, ensure_ascii=False)
    (tmp_path / "huge.jsonl").write_text(f'{line}\n{{"text": "b"}}\n', "utf-8")
    assert (tmp_path / "huge.jsonl").stat().st_size > 50e6
    small = write_jsonl(tmp_path / "small.jsonl", english(20))
    prepare(tmp_path / "small", {"en": [small]}, vocab_size=300)
    code = (
        "import resource, sys; from pathlib import Path; from growlm.data.prepare import prepare\n"
        "out, text, tokenizer = map(Path, sys.argv[1:])\n"
        "m = prepare(out, {'en': [text]}, tokenizer=tokenizer)\n"
        "print(sum(s.bytes for s in m.sources['en'].splits.values()))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    paths = [tmp_path / "out", tmp_path / "huge.jsonl", tmp_path / "small" / "tokenizer.json"]
    run = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    size, peak_mib = map(int, run.stdout.split())
    assert size == len(json.loads(line)["text"].encode()) + 1
    assert peak_mib < 800


def test_ids_of_large_vocabularies_are_32_bit(tmp_path: Path):
    ranks = (
        Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tokenizer" / "cl100k_base.tiktoken"
    )
    if not ranks.exists():
        pytest.skip("no file of cl100k ranks here")
    path = write_jsonl(tmp_path / "a.jsonl", english(4) + chinese(4))
    manifest = prepare(tmp_path / "out", {"mix": [path]}, tokenizer=ranks)
    assert (manifest.dtype, manifest.tokenizer.vocab_size) == ("uint32", 100_263)
    stored = [t for split in ("train", "valid") for t in stored_documents(tmp_path / "out", "mix", split)]
    assert sorted(stored) == sorted(english(4) + chinese(4))
