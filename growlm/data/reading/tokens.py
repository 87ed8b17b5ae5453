"""Text that is tokenised already: files of token ids with an index of documents, memory-mapped.

Two formats: Megatron's (`megatron`: x.bin with x.idx) and datatrove's (`datatrove`: x.ds with x.ds.index).
Neither says which tokenizer wrote the ids, nor whether documents end with an end of document.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from growlm.data.reading.datatrove import DatatroveFile
from growlm.data.reading.files import File
from growlm.data.reading.megatron import MegatronFile
from growlm.data.reading.rows import Extent
from growlm.data.reading.urls import Url
from growlm.data.tokenizer import Tokenizer
from growlm.errors import DataError

_DOCUMENTS = 1 << 16  # whose bounds are looked up at a time


class TokenFile(Protocol):
    """A file of token ids."""

    path: Path
    documents: int
    ids: np.ndarray
    """(tokens,) of all documents, one after the other; mapped, not read."""

    def bounds(self, first: int, end: int) -> np.ndarray:
        """Where documents [first, end) begin, and the last of them ends: (end - first + 1,) int64."""
        ...


def open_tokens(path: File) -> TokenFile:
    """Open a file by its extension, .bin or .ds.

    Raises DataError: it is elsewhere, has no index beside it, or they do not fit.
    """
    if isinstance(path, Url):
        raise DataError(
            "Token files are mapped into memory, so they have to be here",
            where=path,
            fix="copy the file and its index to this machine",
        )
    return MegatronFile(path) if path.suffix == ".bin" else DatatroveFile(path)


def beside(path: File) -> list[Path]:
    """The files there are that say how the ids of `path` are to be read."""
    if isinstance(path, Url):
        return []
    megatron = path.suffix == ".bin"
    found = (
        [path.with_suffix(".idx")] if megatron else [Path(f"{path}{end}") for end in (".index", ".metadata")]
    )
    return [file for file in found if file.exists()]


def token_documents(path: File, tokenizer: Tokenizer, extent: Extent | None = None) -> Iterator[np.ndarray]:
    """The ids of each document, or of documents [start, end) of `extent`; (tokens,) uint32 each.

    Each ends with the tokenizer's end of document: one that has it already keeps it, to others it is added.

    Raises:
        DataError: see `open_tokens`; an id that the tokenizer does not have.
    """
    file = open_tokens(path)
    first, end = extent or (0, file.documents)
    for low in range(first, end, _DOCUMENTS):
        bounds = _checked(file, low, file.bounds(low, min(end, low + _DOCUMENTS)))
        for number, (start, stop) in enumerate(pairwise(bounds), low):
            ids = file.ids[start:stop]
            if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < tokenizer.vocab_size:
                raise _foreign(file.path, number, ids, tokenizer)
            ends = len(ids) > 0 and ids[-1] == tokenizer.eos_id
            yield ids.astype(np.uint32) if ends else np.append(ids, tokenizer.eos_id).astype(np.uint32)


def token_extents(path: File, target_bytes: int) -> list[Extent]:
    """Parts of a file with as many documents each, of together about `target_bytes`. Raises DataError."""
    file = open_tokens(path)
    count = min(max(1, round(file.ids.nbytes / target_bytes)), max(1, file.documents))
    return [(file.documents * i // count, file.documents * (i + 1) // count) for i in range(count)]


def _checked(file: TokenFile, first: int, bounds: np.ndarray) -> np.ndarray:
    """The bounds. Raises DataError unless they ascend and stay inside of the file."""
    if bounds[0] < 0 or bounds[-1] > len(file.ids) or (np.diff(bounds) < 0).any():
        raise DataError(
            "The index of a token file is damaged",
            where=str(file.path),
            why=f"the bounds of documents {first} to {first + len(bounds) - 2} do not ascend",
            fix="write both files again",
        )
    return bounds


def _foreign(path: Path, number: int, ids: np.ndarray, tokenizer: Tokenizer) -> DataError:
    worst = int(ids.min()) if ids.min() < 0 else int(ids.max())
    return DataError(
        "A token file has an id that the tokenizer does not have",
        where=f"{path}: document {number}",
        why=f"id {worst}; the tokenizer's are 0 to {tokenizer.vocab_size - 1}",
        fix="give the tokenizer that wrote the file: --tokenizer ...",
    )
