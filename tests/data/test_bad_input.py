"""Each kind of bad input: one clear error with its place, and nothing written."""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from growlm.data.folder import work_folder
from growlm.data.manifest import Manifest
from growlm.data.prepare import prepare
from growlm.data.reading.files import open_bytes
from growlm.errors import DataError, DiskError, LockError, RecipeError
from growlm.testing.faults import VARIABLE
from tests.data.texts import chinese, english, folder_bytes, write_jsonl


def refused(folder: Path, error: type[Exception], *expected: str, path: str | Path, **options) -> None:
    """Preparing `path` (beside a good source) raises this, says that, and leaves but work to go on from."""
    good = write_jsonl(folder / "good.jsonl", english(4))
    before = beside_work(folder)
    sources = {"good": [good], "bad": [path]}
    with pytest.raises(error) as caught:
        prepare(folder / "out", sources, vocab_size=300, max_bad_rows=0, **options)
    for words in expected:
        assert words in str(caught.value)
    assert beside_work(folder) == before
    assert not (folder / "out").exists()


def beside_work(folder: Path) -> dict[str, bytes]:
    """Every file that is no work of a preparation of `out`."""
    return {
        name: data for name, data in folder_bytes(folder).items() if not name.startswith(".out.preparing/")
    }


def gbk(path: Path) -> None:
    path.write_bytes(b"plain\n" + "".join(chinese(3)).encode("gbk"))


def gbk_far(path: Path) -> None:
    path.write_bytes("字".encode() * 400_001 + "汉语拼音".encode("gbk"))


def half_character(path: Path) -> None:
    path.write_bytes("end 字".encode()[:-1])


def cut_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress("\n".join(english(200)).encode())[:-40])


TEXTS: dict[str, tuple[str, Callable[[Path], object], list[str]]] = {
    "empty file": ("a.txt", lambda p: p.write_bytes(b""), ["'bad' is empty", "a.txt"]),
    "white space": ("a.md", lambda p: p.write_text(" \n\n \t"), ["'bad' is empty"]),
    "zero byte": ("a.txt", lambda p: p.write_bytes(b"text\0more"), ["binary", "a.txt: byte 4"]),
    "random bytes": ("a.txt", lambda p: p.write_bytes(b"\x7fELF\xff\x00\x80"), ["binary", "byte 5"]),
    "GBK": ("a.txt", gbk, ["not UTF-8", "a.txt: byte 6", "looks like GB18030", "iconv -f GB18030"]),
    "GBK far inside": ("a.txt", gbk_far, ["not UTF-8", "a.txt: byte 1200003", "GB18030"]),
    "Latin-1": ("a.txt", lambda p: p.write_bytes("cafécafé".encode("latin-1") * 9), ["iconv -f ITS-ENC"]),
    "GBK JSON": (
        "a.jsonl",
        lambda p: p.write_bytes('{}\n{"text": "汉语"}'.encode("gbk")[3:]),
        [":1: byte 10"],
    ),
    "UTF-16": ("a.txt", lambda p: p.write_text("hello", "utf-16"), ["not UTF-8", "iconv -f UTF-16"]),
    "half a character": ("a.txt", half_character, ["not UTF-8", "a.txt: byte 4"]),
    "cut gzip": ("a.txt.gz", cut_gzip, ["damaged or cut short", "a.txt.gz"]),
    "not gzip": ("a.jsonl.gz", lambda p: p.write_bytes(b"plain"), ["damaged or cut short"]),
    "broken JSON": (
        "a.jsonl",
        lambda p: p.write_text('{"text": "a"}\n\n{"text": "b"'),
        ["a.jsonl:3", "JSON"],
    ),
    "JSON list": ("a.jsonl", lambda p: p.write_text('["a"]'), ["a.jsonl:1", "not a JSON object", "a list"]),
    "no field": ("a.jsonl", lambda p: p.write_text('{"content": "a"}'), ["a.jsonl:1", "it has 'content'"]),
    "null text": ("a.jsonl", lambda p: p.write_text('{"text": null}'), ["a.jsonl:1", "no field `text`"]),
    "half a surrogate": (
        "a.jsonl",
        lambda p: p.write_text('{"text": "a\\ud800"}'),
        ["a.jsonl:1", "character 1"],
    ),
    "unknown extension": ("a.pdf", lambda p: p.write_bytes(b"%PDF"), ["'a.pdf'", ".jsonl"]),
    "one short document": (
        "a.jsonl",
        lambda p: p.write_text('{"text": "a"}'),
        ["too few different documents"],
    ),
    "not Parquet": (
        "a.parquet",
        lambda p: p.write_bytes(b"PAR1"),
        ["Parquet file cannot be read", "a.parquet"],
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_bad_text_is_refused(tmp_path: Path, case: str):
    name, write, expected = TEXTS[case]
    write(tmp_path / name)
    refused(tmp_path, DataError, *expected, path=tmp_path / name)


def test_nothing_there_is_refused(tmp_path: Path):
    refused(tmp_path, DataError, "no text here", "missing", path=tmp_path / "missing")
    (tmp_path / "void").mkdir()
    refused(tmp_path, DataError, "no text here", path=tmp_path / "void")
    refused(tmp_path, DataError, "no text here", path=tmp_path / "*.nothing")


def test_unreadable_file_is_refused(tmp_path: Path):
    (tmp_path / "folder.txt").symlink_to(tmp_path / "loop.txt")
    (tmp_path / "loop.txt").symlink_to(tmp_path / "folder.txt")
    refused(tmp_path, DataError, "cannot be read", "loop.txt", path=tmp_path / "loop.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_file_and_folder_without_permission_are_refused(tmp_path: Path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "secret.txt").write_text("text")
    for secret in (tmp_path / "open" / "secret.txt", tmp_path / "open"):
        secret.chmod(0)
        refused(tmp_path, DataError, "cannot be read", str(secret), path=tmp_path / "open")
        secret.chmod(0o755)


def test_a_disk_that_fails_is_no_missing_permission(tmp_path: Path):
    def read(number: int) -> None:
        with open_bytes(path):
            raise OSError(number, os.strerror(number))

    path = tmp_path / "a.txt"
    path.write_text("text")
    for number, fix in ((errno.EIO, "try again"), (errno.EACCES, "readable for this user")):
        with pytest.raises(DataError) as caught:
            read(number)
        assert fix in caught.value.fix


def test_parquet_without_text_is_refused(tmp_path: Path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"body": ["a", "b"]}), tmp_path / "a.parquet")
    refused(tmp_path, DataError, "no column `text`", "its columns are body", path=tmp_path / "a.parquet")
    parquet.write_table(pyarrow.table({"text": ["a", None]}), tmp_path / "b.parquet")
    refused(tmp_path, DataError, "no field `text`", "row 1", "NoneType", path=tmp_path / "b.parquet")


@pytest.mark.parametrize(("module", "name"), [("zstandard", "a.jsonl.zst"), ("pyarrow.parquet", "a.parquet")])
def test_missing_extra_says_how_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
):
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / name).write_bytes(b"")
    refused(tmp_path, DataError, 'pip install "growlm[data]"', path=tmp_path / name)


def tokenizer_json(folder: Path, change: Callable[[dict], None]) -> Path:
    """A tokenizer.json that was good before `change`."""
    good = write_jsonl(folder / "text.jsonl", english(4))
    prepare(folder / "first", {"en": [good]}, vocab_size=300)
    content = json.loads((folder / "first" / "tokenizer.json").read_text())
    change(content)
    path = folder / "changed.json"
    path.write_text(json.dumps(content))
    return path


BAD_TOKENIZERS: dict[str, tuple[Callable[[dict], None], str]] = {
    "two tokens with one id": (lambda t: t["model"]["vocab"].update({"a": 70, "b": 70}), "no bijection"),
    "too large": (lambda t: t["model"]["vocab"].update({"zebra": 10**9}), "ids are too large"),
    "not a tokenizer": (lambda t: t.clear(), "cannot be read"),
    "lower-cased": (lambda t: t.update(normalizer={"type": "Lowercase"}), "loses text"),
}


@pytest.mark.parametrize("case", BAD_TOKENIZERS)
def test_bad_tokenizer_is_refused(tmp_path: Path, case: str):
    change, words = BAD_TOKENIZERS[case]
    path = tokenizer_json(tmp_path, change)
    with pytest.raises(DataError, match=words):
        prepare(tmp_path / "out", {"en": [tmp_path / "text.jsonl"]}, tokenizer=path)
    assert not (tmp_path / "out").exists()


def test_bad_flags_are_refused(tmp_path: Path):
    good = write_jsonl(tmp_path / "text.jsonl", english(4))
    cases: list[tuple[dict[str, list[Path]], dict[str, Any]]] = [
        ({}, {}),
        ({"a/b": [good]}, {}),
        ({"manifest.json": [good]}, {}),
        ({"Card.md": [good]}, {}),
        ({"en": [good]}, {"validation_share": 0.0}),
        ({"en": [good]}, {"vocab_size": 100}),
    ]
    for sources, options in cases:
        with pytest.raises(RecipeError, match="fix:"):
            prepare(tmp_path / "out", sources, **options)
        assert [path.name for path in tmp_path.iterdir()] == ["text.jsonl"], "nothing was read"


def test_other_folders_are_never_overwritten_and_prepared_ones_are_replaced(tmp_path: Path):
    good = write_jsonl(tmp_path / "text.jsonl", english(4))
    out = tmp_path / "out"
    out.mkdir()
    prepare(out, {"en": [good]}, vocab_size=300)
    first = folder_bytes(out)
    prepare(out, {"en": [good]}, vocab_size=280)
    assert folder_bytes(out) != first
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["out", "text.jsonl"]
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("precious")
    for other in (thesis, thesis / "chapter.txt"):
        with pytest.raises(DataError, match="not written by `growlm data prepare`"):
            prepare(other, {"en": [good]}, vocab_size=300)
    assert (thesis / "chapter.txt").read_text() == "precious"


def test_full_disk_leaves_the_old_folder_as_it_was_and_the_work_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    good = write_jsonl(tmp_path / "text.jsonl", english(40))
    prepare(tmp_path / "expected", {"en": [good]}, vocab_size=280, shard_bytes=1000)
    prepare(tmp_path / "out", {"en": [good]}, vocab_size=300)
    before = folder_bytes(tmp_path / "out")
    monkeypatch.setenv(VARIABLE, "data.write:enospc@3")
    with pytest.raises(DiskError, match="disk is full") as caught:
        prepare(tmp_path / "out", {"en": [good]}, vocab_size=280, shard_bytes=1000)
    assert ".out.preparing" in caught.value.why
    assert folder_bytes(tmp_path / "out") == before
    monkeypatch.delenv(VARIABLE)
    prepare(tmp_path / "out", {"en": [good]}, vocab_size=280, shard_bytes=1000)
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "expected")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "out", "text.jsonl"]


def test_place_that_cannot_be_written_is_refused(tmp_path: Path):
    good = write_jsonl(tmp_path / "text.jsonl", english(4))
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DiskError, match="cannot be written"):
        prepare(tmp_path / "file" / "out", {"en": [good]}, vocab_size=300)
    with pytest.raises(DiskError, match="cannot be written"):  # not even by root
        prepare(Path("/proc/growlm/out"), {"en": [good]}, vocab_size=300)


def test_an_error_of_another_file_is_not_of_the_output(tmp_path: Path):
    def work(error: OSError) -> None:
        with work_folder(tmp_path / "out", "a plan") as folder:
            (folder / "done").write_text("")
            raise error

    def fail(error: OSError) -> DiskError:
        with pytest.raises(DiskError) as caught:
            work(error)
        return caught.value

    found = fail(OSError(errno.EIO, "Input/output error", "some/file"))
    assert (found.what, found.where) == ("A file of the preparation cannot be read or written", "some/file")
    assert "the same command again" in found.fix
    found = fail(OSError(errno.EROFS, "Read-only file system"))
    assert (found.what, found.where) == ("The output folder cannot be written", str(tmp_path / "out"))


def test_the_target_of_a_link_is_replaced(tmp_path: Path):
    good = write_jsonl(tmp_path / "text.jsonl", english(4))
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    for size in (280, 300):
        prepare(tmp_path / "out", {"en": [good]}, vocab_size=size)
        assert (tmp_path / "out").is_symlink()
        assert Manifest.load(tmp_path / "disk").tokenizer.vocab_size == size
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "out", "text.jsonl"}


def test_two_preparations_of_one_folder_do_not_mix(tmp_path: Path):
    good = write_jsonl(tmp_path / "text.jsonl", english(4))
    with work_folder(tmp_path / "out", "a plan"), pytest.raises(LockError, match="Another process"):
        prepare(tmp_path / "out", {"en": [good]}, vocab_size=300)
    prepare(tmp_path / "out", {"en": [good]}, vocab_size=300)


@pytest.mark.parametrize("fault", ["data.write:kill@3", "data.between_renames:kill"])
def test_a_kill_at_any_time_loses_nothing_and_leaves_nothing(tmp_path: Path, fault: str):
    good = write_jsonl(tmp_path / "text.jsonl", english(40))
    prepare(tmp_path / "out", {"en": [good]}, vocab_size=300)
    before = folder_bytes(tmp_path / "out")
    code = (
        "import sys; from pathlib import Path; from growlm.data.prepare import prepare\n"
        "prepare(Path(sys.argv[1]), {'en': sys.argv[2:]}, vocab_size=280, shard_bytes=1000)"
    )
    command = [sys.executable, "-c", code, tmp_path / "out", good]
    killed = subprocess.run(command, env={**os.environ, VARIABLE: fault}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(DataError):  # the next run puts back what was there before it does anything else
        prepare(tmp_path / "out", {"en": [good], "copy": [good]})
    assert folder_bytes(tmp_path / "out") == before
    assert [path.name for path in sorted(tmp_path.iterdir())] == [".out.preparing", "out", "text.jsonl"]
