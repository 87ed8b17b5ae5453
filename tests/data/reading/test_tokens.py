"""Token files of other projects: the same ids, document by document, written by layouts of their own."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from growlm.data.reading.tokens import open_tokens, token_documents, token_extents
from growlm.data.tokenizer import Tokenizer
from growlm.errors import DataError
from tests.data.texts import chinese, english

TOKENIZER = Tokenizer.train(english(5) + chinese(5), 400)
EOS = TOKENIZER.eos_id
DOCUMENTS = [[*TOKENIZER.encode(text), EOS] for text in english(9, 30) + chinese(4, 40)]


def write_megatron(
    path: Path, documents: Sequence[Sequence[int]], dtype: str = "<u2", code: int = 8, cut: int = 10**9
) -> Path:
    """As `IndexedDatasetBuilder` of Megatron-LM: documents of one sequence per `cut` tokens."""
    sequences = [d[i : i + cut] for d in documents for i in range(0, len(d), cut)]
    lengths = [len(s) for s in sequences]
    bounds = np.cumsum([0, *(-(-len(d) // cut) for d in documents)])
    starts = np.cumsum([0, *lengths])[:-1] * np.dtype(dtype).itemsize
    path.write_bytes(b"".join(np.array(s, dtype).tobytes() for s in sequences))
    path.with_suffix(".idx").write_bytes(
        b"MMIDIDX\x00\x00"
        + struct.pack("<QBQQ", 1, code, len(sequences), len(bounds))
        + np.array(lengths, "<i4").tobytes()
        + starts.astype("<i8").tobytes()
        + bounds.astype("<i8").tobytes()
    )
    return path


def write_datatrove(path: Path, documents: Sequence[Sequence[int]], dtype: str = "<u2") -> Path:
    path.write_bytes(b"".join(np.array(d, dtype).tobytes() for d in documents))
    ends = np.cumsum([len(d) for d in documents])
    path.with_name(path.name + ".index").write_bytes(struct.pack(f"<{len(ends)}Q", *ends))
    width = np.dtype(dtype).itemsize
    path.with_name(path.name + ".metadata").write_text(f"some|name|{width}\n{ends[-1]}\n1T")
    return path


WRITERS: dict[str, Callable[[Path, Sequence[Sequence[int]]], Path]] = {
    "megatron u16": lambda p, d: write_megatron(p / "a.bin", d),
    "megatron i32": lambda p, d: write_megatron(p / "a.bin", d, "<i4", 4),
    "megatron sentences": lambda p, d: write_megatron(p / "a.bin", d, cut=7),
    "datatrove u16": lambda p, d: write_datatrove(p / "a.ds", d),
    "datatrove u32": lambda p, d: write_datatrove(p / "a.ds", d, "<u4"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_documents_are_those_that_were_written(tmp_path: Path, writer: str):
    path = WRITERS[writer](tmp_path, DOCUMENTS)
    assert [ids.tolist() for ids in token_documents(path, TOKENIZER)] == DOCUMENTS
    for target in (1, 500, 10**9):
        parts = token_extents(path, target)
        assert [i.tolist() for part in parts for i in token_documents(path, TOKENIZER, part)] == DOCUMENTS
    assert open_tokens(path).documents == len(token_extents(path, 1)) == len(DOCUMENTS)


def test_every_document_ends_once(tmp_path: Path):
    bare = [ids[:-1] for ids in DOCUMENTS]
    mixed = [[], [EOS], *bare[:3], *DOCUMENTS[3:]]
    for path in (write_megatron(tmp_path / "a.bin", mixed), write_datatrove(tmp_path / "a.ds", mixed)):
        assert [ids.tolist() for ids in token_documents(path, TOKENIZER)] == [[EOS], [EOS], *DOCUMENTS]


def test_datatroves_own_files_are_read(tmp_path: Path):
    pytest.importorskip("datatrove")
    from datatrove.pipeline.tokens.tokenizer import TokenizedFile

    for size in (2, 4):
        file = TokenizedFile(str(tmp_path), f"{size}.ds", save_final_metadata=True, token_size=size)
        for ids in DOCUMENTS:
            file.write(ids, None)
        file.close()
        got = token_documents(tmp_path / f"{size}.ds", TOKENIZER)
        assert [ids.tolist() for ids in got] == DOCUMENTS


def test_ids_of_another_tokenizer_are_refused(tmp_path: Path):
    wrong = [*DOCUMENTS, [3, 400, 5]]
    for path in (write_megatron(tmp_path / "a.bin", wrong), write_datatrove(tmp_path / "a.ds", wrong)):
        with pytest.raises(DataError, match=r"does not have\n.*document 13\n.*id 400; .* 0 to 399"):
            list(token_documents(path, TOKENIZER))
    path = write_megatron(tmp_path / "a.bin", [[1, -7]], "<i4", 4)
    with pytest.raises(DataError, match="id -7"):
        list(token_documents(path, TOKENIZER))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no index": lambda p: p.unlink(),
    "empty": lambda p: p.write_bytes(b""),
    "cut": lambda p: p.write_bytes(p.read_bytes()[:-9]),
    "other": lambda p: p.write_bytes(b"PNG" + p.read_bytes()[3:]),
    "bounds": lambda p: p.write_bytes(p.read_bytes()[:-16] + struct.pack("<QQ", 2, 1)),
}


@pytest.mark.parametrize("kind", ["megatron", "datatrove"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_indices_are_refused(tmp_path: Path, kind: str, damage: str):
    if kind == "megatron":
        path, index = write_megatron(tmp_path / "a.bin", DOCUMENTS), tmp_path / "a.idx"
    else:
        path, index = write_datatrove(tmp_path / "a.ds", DOCUMENTS), tmp_path / "a.ds.index"
    DAMAGE[damage](index)
    with pytest.raises(DataError, match="fix:"):
        list(token_documents(path, TOKENIZER))


@pytest.mark.parametrize("kind", ["megatron", "datatrove"])
def test_cut_token_files_are_refused(tmp_path: Path, kind: str):
    write = {"megatron": write_megatron, "datatrove": write_datatrove}[kind]
    path = write(tmp_path / {"megatron": "a.bin", "datatrove": "a.ds"}[kind], DOCUMENTS)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match="cannot be read"):
        open_tokens(path)
