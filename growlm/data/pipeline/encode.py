"""Phase 6: the documents of a chunk as token ids, training and validation apart."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from growlm.data.manifest import MARK, SPLITS
from growlm.data.pipeline.chunks import Chunk
from growlm.data.pipeline.work import TOKENIZER, Work
from growlm.data.segments import Segment
from growlm.data.tokenizer import Tokenizer, pieces

_Content = TypeVar("_Content")
_BATCH_CHARS = 1 << 20  # text that is encoded at a time


class _Piece(NamedTuple):
    """A part of a segment; `text` is None of a special token, whose id stands for it."""

    label: int
    text: str | None
    id: int
    learn: bool


def encode(
    documents: Iterable[tuple[int, Sequence[Segment]]],
    tokenizer: Tokenizer,
    dtype: np.dtype,
    *,
    learn_end: bool = False,
) -> Iterator[tuple[int, np.ndarray]]:
    """Token ids of labelled documents, batch by batch as (label, ids), each document ended by eos.

    Long documents are encoded in pieces, so memory stays bounded. Ids of segments that are learnt carry
    `MARK`; so does, with `learn_end`, the eos behind such a segment.
    """
    for batch in _batches(documents, tokenizer, learn_end):
        texts = [piece.text for piece in batch if piece.text is not None]
        encoded = iter(tokenizer.encode_batch(texts))
        found: dict[int, array[int]] = {}
        for piece in batch:
            ids = [piece.id] if piece.text is None else next(encoded)
            if piece.learn:
                ids = [number | MARK for number in ids]
            found.setdefault(piece.label, array("I")).extend(ids)
        for label, ids in found.items():
            yield label, np.frombuffer(ids, np.uint32).astype(dtype)


def encode_chunk(work: Work, number: int, advance: Callable[[int], None]) -> None:
    """Write the ids of chunk `number` to `train.bin` and `valid.bin`, with their counts."""
    place = work.chunks[number]
    source = work.plan.sources[place.source]
    chunk = Chunk(work, place)
    kept = np.load(work.path("settle", number) / "kept.npy")
    limit = work.read("decisions")[place.source]["limit"]
    docs = chunk.docs()
    held_out = docs["group"] < np.uint64(limit)
    tokenizer = _tokenizer(work.path("tokenizer", 0) / TOKENIZER)
    dtype = stored_dtype(source.stored, tokenizer.vocab_size)

    def labelled(documents: Iterable[tuple[int, _Content]]) -> Iterator[tuple[int, _Content]]:
        for index, content in documents:
            advance(int(docs["bytes"][index]))
            yield int(held_out[index]), content

    if source.kind == "tokens":
        encoded = labelled(chunk.ids(kept))
    else:
        learn_end = source.kind == "instructions"
        encoded = encode(labelled(chunk.documents(kept)), tokenizer, dtype, learn_end=learn_end)
    tokens = [0, 0]
    with work.commit("encode", number) as folder, ExitStack() as stack:
        files = [stack.enter_context((folder / f"{split}.bin").open("wb")) for split in SPLITS]
        for label, ids in encoded:
            ids.astype(dtype, copy=False).tofile(files[label])
            tokens[label] += len(ids)
        stack.close()
        masks = (kept & ~held_out, kept & held_out)
        counts = [
            {"documents": int(mask.sum()), "bytes": int(docs["bytes"][mask].sum()), "tokens": count}
            for mask, count in zip(masks, tokens, strict=True)
        ]
        (folder / "result.json").write_text(json.dumps(counts))


def stored_dtype(kind: str, vocab_size: int) -> np.dtype:
    """How ids are stored: those of text as small as they fit, those of examples with room for `MARK`."""
    return np.dtype("<u2" if kind == "text" and vocab_size <= 1 << 16 else "<u4")


def _batches(
    documents: Iterable[tuple[int, Sequence[Segment]]], tokenizer: Tokenizer, learn_end: bool
) -> Iterator[list[_Piece]]:
    """Pieces of documents, of `_BATCH_CHARS` together."""
    batch: list[_Piece] = []
    size = 0
    for label, segments in documents:
        for segment in segments:
            if segment.special:
                batch.append(_Piece(label, None, tokenizer.special_ids[segment.text], segment.learn))
                continue
            for text in pieces(segment.text):
                batch.append(_Piece(label, text, 0, segment.learn))
                size += len(text)
                if size >= _BATCH_CHARS:
                    yield batch
                    batch, size = [], 0
        batch.append(_Piece(label, None, tokenizer.eos_id, learn_end and segments[-1].learn))
    if batch:
        yield batch


@lru_cache(maxsize=1)
def _tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.load(path)
