"""Files elsewhere: the same documents as from a folder, from a store in memory and a local server."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from growlm.data.reading.documents import documents, read, rows
from growlm.data.reading.extents import extents
from growlm.data.reading.files import expand, file_of
from growlm.data.reading.tokens import open_tokens
from growlm.data.reading.urls import Url
from growlm.errors import DataError
from tests.data.reading.test_documents import write_parquet
from tests.data.texts import chinese, english, write_jsonl

TEXTS = english(20, 30) + chinese(10, 40)


@pytest.fixture
def store() -> Iterator[Any]:
    """fsspec's `memory://`."""
    system = pytest.importorskip("fsspec").filesystem("memory")
    yield system
    system.store.clear()


def upload(system: Any, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            system.pipe(f"/data/{path.relative_to(folder)}", path.read_bytes())


def test_a_store_gives_what_its_copy_here_gives(store: Any, tmp_path: Path):
    (tmp_path / "sub").mkdir()
    write_jsonl(tmp_path / "a.jsonl", TEXTS[:10])
    content = write_jsonl(tmp_path / "x.jsonl", TEXTS[10:20]).read_bytes()
    (tmp_path / "sub" / "b.jsonl.gz").write_bytes(gzip.compress(content))
    write_parquet(tmp_path / "sub" / "c.parquet", TEXTS[20:])
    (tmp_path / "x.jsonl").rename(tmp_path / ".hidden.jsonl")
    (tmp_path / "d.txt").write_text("text\n\nand more", "utf-8")
    (tmp_path / "e.pdf").write_bytes(b"%PDF")
    upload(store, tmp_path)
    here, there = expand([tmp_path]), expand(["memory://data"])
    assert [str(f).removeprefix("memory://") for f in there] == [
        f"/data/{Path(str(f)).relative_to(tmp_path)}" for f in here
    ]
    assert list(documents(there)) == list(documents(here))
    assert [f.stat().st_size for f in there] == [f.stat().st_size for f in here]
    assert expand(["memory://data/sub/*.gz"]) == [file_of("memory:///data/sub/b.jsonl.gz")]
    assert expand(["memory://data/a.jsonl"]) == [file_of("memory:///data/a.jsonl")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_parts_of_a_file_in_a_store_are_all_of_it(store: Any, tmp_path: Path, name: str):
    path = tmp_path / name
    write_jsonl(path, TEXTS) if name == "a.jsonl" else write_parquet(path, TEXTS)
    upload(store, tmp_path)
    (url,) = expand(["memory://data"])
    parts = extents(url, 2000)
    assert len(parts) > 2
    assert parts == extents(path, 2000)
    assert [d.text for part in parts for d in read(url, part)] == TEXTS


def test_a_files_version_changes_with_it(store: Any):
    pytest.importorskip("fsspec")
    url = Url("memory://data/a.txt")
    with pytest.raises(DataError, match="A source cannot be read"):
        url.stat()
    store.pipe("/data/a.txt", b"text")
    assert url.stat().st_size == 4
    assert (url.name, url.suffix, url.absolute()) == ("a.txt", ".txt", url)
    assert Url("https://x.org/d/a.jsonl.gz?download=1").suffix == ".gz"


def test_a_server_is_read(tmp_path: Path):
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    write_jsonl(tmp_path / "a.jsonl", TEXTS)
    handler = partial(_Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        (url,) = expand([f"http://127.0.0.1:{server.server_port}/a.jsonl"])
        assert [d.text for d in read(url)] == TEXTS
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_what_cannot_be_reached_is_refused(store: Any, monkeypatch: pytest.MonkeyPatch):
    store.pipe("/data/a.pdf", b"%PDF")
    store.pipe("/data/a.bin", b"")
    for address, words in {
        "memory://nothing": "There is no text here",
        "memory://data/a.pdf": "no format that can be read",
        "nonsense://data": "A source cannot be read",
    }.items():
        with pytest.raises(DataError, match=words):
            expand([address])
    with pytest.raises(DataError, match="have to be here"):
        open_tokens(file_of("memory://data/a.bin"))
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(DataError, match=r"s3:// needs another package\n.*\n.*[Ii]nstall s3fs"):
        expand(["s3://bucket/a.jsonl"])
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(DataError, match=r'pip install "growlm\[data\]"'):
        expand(["s3://bucket/a.jsonl"])


@pytest.mark.parametrize("form", ["stream", "file"])
def test_hugging_face_folders_are_read(tmp_path: Path, form: str):
    """The layout of `datasets`: IPC streams named data-00000-of-00002.arrow; its caches are left out."""
    arrow, ipc = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.ipc")
    new = {"stream": ipc.new_stream, "file": ipc.new_file}[form]
    table = arrow.table({"text": TEXTS, "label": list(range(30)), "license": [None, "CC0"] * 15})
    for name, part in (("data-00000-of-00002", table[:17]), ("data-00001-of-00002", table[17:])):
        with (tmp_path / f"{name}.arrow").open("wb") as raw, new(raw, table.schema) as writer:
            writer.write_table(part, max_chunksize=4)
    (tmp_path / "cache-0123456789abcdef.arrow").write_bytes(b"junk")
    (tmp_path / "state.json").write_text("{}")
    files = expand([tmp_path])
    assert [(d.text, d.license) for d in documents(files)] == [
        (text, "CC0" if i % 2 else "") for i, text in enumerate(TEXTS)
    ]
    assert [row["label"] for file in files for _, row in rows(file)] == list(range(30))
    whole = (tmp_path / "data-00000-of-00002.arrow").read_bytes()
    for bad in (whole[:-300], b"", b"PAR1" * 9):
        (tmp_path / "bad.arrow").write_bytes(bad)
        with pytest.raises(DataError, match="An Arrow file cannot be read"):
            list(read(tmp_path / "bad.arrow"))
    with (tmp_path / "bad.arrow").open("wb") as raw, new(raw, table.select(["label"]).schema) as writer:
        writer.write_table(table.select(["label"]))
    with pytest.raises(DataError, match="no column `text`"):
        list(read(tmp_path / "bad.arrow"))
