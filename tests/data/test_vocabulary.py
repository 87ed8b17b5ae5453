"""Training a vocabulary: shares as asked, held-out text, bounded words, and a kill that costs no sample."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from growlm.cli.main import app
from growlm.data.draw import draw
from growlm.data.progress import Progress
from growlm.data.tokenizer import SPECIALS, Tokenizer, _bounded
from growlm.data.vocabulary import REPORT, train_vocabulary
from growlm.errors import DataError, RecipeError
from growlm.testing.faults import VARIABLE
from tests.data.texts import chinese, english, folder_bytes, write_jsonl


def sources(folder: Path) -> dict[str, list[Path]]:
    return {
        "en": [write_jsonl(folder / "en.jsonl", english(400))],
        "zh": [write_jsonl(folder / "zh.jsonl", chinese(400))],
    }


def test_a_draw_is_even_and_holds_out_other_text(tmp_path: Path):
    texts = english(400)
    ahead = write_jsonl(tmp_path / "a.jsonl", texts + texts[:50])
    back = write_jsonl(tmp_path / "b.jsonl", texts[::-1])
    size = sum(len(text) for text in texts) // 4
    found, other = (draw("en", [path], size, 0, lambda _: None) for path in (ahead, back))
    assert found == other
    assert size <= found.bytes < size + max(map(len, texts))
    assert len(set(found.texts)) == len(found.texts) > 90
    assert not set(found.texts) & set(found.held)
    assert 0 < len(found.held) < 40
    drawn = {texts.index(text) for text in found.texts}
    assert all(len(drawn & set(range(i, i + 100))) > 10 for i in range(0, 400, 100))
    assert set(found.texts) < set(draw("en", [ahead], 2 * size, 0, lambda _: None).texts)


def test_one_book_is_drawn_from_in_pieces(tmp_path: Path):
    book = "\n\n".join(english(60))
    (tmp_path / "book.txt").write_text(book)
    found = draw("en", [tmp_path / "book.txt"], 1 << 20, 0, lambda _: None)
    assert sorted("".join(found.texts + found.held)) == sorted(book)
    (tmp_path / "word.txt").write_text("x")
    with pytest.raises(DataError, match="too little text"):
        draw("en", [tmp_path / "word.txt"], 1 << 20, 0, lambda _: None)


def test_of_a_large_source_parts_all_over_it_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    texts = english(400)
    path = write_jsonl(tmp_path / "a.jsonl", texts)
    size = path.stat().st_size
    monkeypatch.setattr("growlm.data.draw._PART_BYTES", size // 40)
    monkeypatch.setattr("growlm.data.draw.READ_BYTES", size // 4)
    read: list[int] = []
    found = draw("en", [path], size, 0, read.append)
    assert size / 5 < sum(read) < size / 3
    tenths = {texts.index(text) // 40 for text in found.texts}
    assert len(tenths) >= 5
    assert found == draw("en", [path], size, 0, lambda _: None)


def test_long_words_without_spaces_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("growlm.data.tokenizer._ENDLESS_BYTES", 40)
    texts = ["汉语拼音字母汉语拼音字母", "a 汉语拼音 b", "the 汉语 " + "x" * 17 + " y汉语拼y"]
    assert list(_bounded(texts)) == [texts[0], "a 汉语拼音 b", "the 汉语   y汉语拼y"]


def test_the_folder_holds_the_tokenizer_and_what_it_is_worth(tmp_path: Path):
    weights = {"en": 30.0, "zh": 10.0}
    other = Tokenizer.train(english(50), 300)
    other.save(tmp_path / "other.json")
    given = sources(tmp_path)
    options = {"vocab_size": 400, "weights": weights, "sample_bytes": 100_000}
    report = train_vocabulary(tmp_path / "out", given, compare=tmp_path / "other.json", **options)
    tokenizer = Tokenizer.load(tmp_path / "out" / "tokenizer.json")
    assert (report.hash, report.vocab_size, report.padded_vocab_size) == (tokenizer.hash, 400, 448)
    assert list(tokenizer.special_ids) == list(SPECIALS)
    assert report.sources["en"].share == pytest.approx(0.75, abs=0.01)
    for name, size in (("en", 75_000), ("zh", 25_000)):
        held = draw(name, given[name], size, 0, lambda _: None).held
        for candidate, said in (
            (tokenizer, report.sources[name].bytes_per_token),
            (other, report.sources[name].compared),
        ):
            tokens = sum(len(candidate.encode(text)) for text in held)
            assert said == pytest.approx(sum(len(text.encode()) for text in held) / tokens)
    assert json.loads((tmp_path / "out" / REPORT).read_bytes()) == report.model_dump()
    again = train_vocabulary(tmp_path / "again", given, compare=tmp_path / "other.json", **options)
    assert folder_bytes(tmp_path / "again") == folder_bytes(tmp_path / "out")
    assert again == report


def test_after_a_kill_the_samples_are_not_drawn_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = sources(tmp_path)
    code = (
        "import sys; from pathlib import Path; from growlm.data.vocabulary import train_vocabulary\n"
        "train_vocabulary(Path(sys.argv[1]), {'en': sys.argv[2:3], 'zh': sys.argv[3:]}, vocab_size=300)"
    )
    command = [sys.executable, "-c", code, tmp_path / "out", *given["en"], *given["zh"]]
    killed = subprocess.run(command, env={**os.environ, VARIABLE: "data.train:kill"}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    train_vocabulary(tmp_path / "out", given, vocab_size=300, progress=Progress())
    assert capsys.readouterr().err.count("the sample was drawn before") == 2
    train_vocabulary(tmp_path / "straight", given, vocab_size=300)
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "straight")
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--weight", "en=1"], "The weights are not those of the sources: 'zh'"),
        (["--weight", "en=1", "--weight", "zh=1", "--weight", "de=1"], "'de'"),
        (["--weight", "en=0", "--weight", "zh=0"], "are no shares"),
        (["--weight", "en=2", "--weight", "zh=-1"], "are no shares"),
        (["--weight", "en=nan", "--weight", "zh=1"], "are no shares"),
        (["--weight", "en=much", "--weight", "zh=1"], "'much' is no number"),
        (["--source", "../../pwn=a.jsonl"], "A source cannot be named '../../pwn'"),
        (["--vocab-size", "262"], "A vocabulary of 262 is too small"),
    ],
)
def test_bad_flags_are_refused(tmp_path: Path, flags: list[str], words: str):
    given = sources(tmp_path)
    paths = [f"--source={name}={files[0]}" for name, files in given.items()]
    result = CliRunner().invoke(app, ["data", "tokenizer", str(tmp_path / "out"), *paths, *flags])
    assert isinstance(result.exception, RecipeError)
    assert words in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis").write_text("precious")
    with pytest.raises(RecipeError, match="something in the output folder"):
        train_vocabulary(tmp_path / "out", sources(tmp_path), vocab_size=300)
