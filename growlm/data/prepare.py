"""`growlm data prepare`: text in, verified token shards out, as one folder or not at all."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import xxhash

from growlm.data.folder import whole_folder
from growlm.data.manifest import MANIFEST, Manifest, Source, Split, TokenizerEntry
from growlm.data.progress import Progress
from growlm.data.reading.documents import documents
from growlm.data.reading.files import expand
from growlm.data.reading.text import CUT_CHARS
from growlm.data.scan import SAMPLE_BYTES, TRAIN, VALID, Scanned, decide, scan, tokenizer_sample
from growlm.data.shards import ShardWriter
from growlm.data.tiktoken_ranks import load_ranks
from growlm.data.tokenizer import Tokenizer, pieces
from growlm.errors import DataError, RecipeError

SHARD_BYTES = 256 << 20
_BATCH_CHARS = 2 << 20  # text that is encoded at a time
_SPLIT_NAMES = {TRAIN: "train", VALID: "valid"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def prepare(
    out: Path,
    sources: Mapping[str, Sequence[str | Path]],
    *,
    vocab_size: int = 8192,
    tokenizer: Path | None = None,
    validation_share: float = 0.01,
    progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Manifest:
    """Write the token shards of some sources, each given by files, folders and globs, to `out`.

    Everything is read twice: first to find whatever is wrong, the duplicates and the split, then to
    encode. The same input gives the same bytes.

    Args:
        tokenizer: a `tokenizer.json` or `*.tiktoken` file; None trains one of `vocab_size` tokens.
        validation_share: share of each source's documents that is held out.
        shard_bytes: largest size of one shard.

    Raises:
        RecipeError: a flag is wrong. DataError: the text or tokenizer is. DiskError: `out` cannot be
        written. In each case `out` is as it was.
    """
    _check_flags(sources, validation_share)
    progress = progress or Progress(quiet=True)
    given = None if tokenizer is None else _load(tokenizer)
    files = {name: expand(paths) for name, paths in sources.items()}
    with whole_folder(out) as folder:
        scans = [scan(name, found, SAMPLE_BYTES, progress) for name, found in files.items()]
        decide(scans, validation_share)
        encoder = given or _train(scans, vocab_size, progress)
        encoder.save(folder / "tokenizer.json")
        dtype = np.dtype("<u2" if encoder.vocab_size <= 1 << 16 else "<u4")
        manifest = Manifest(
            tokenizer=TokenizerEntry(
                file="tokenizer.json",
                hash=encoder.hash,
                vocab_size=encoder.vocab_size,
                eos_id=encoder.eos_id,
            ),
            dtype=dtype.name,
            validation_share=validation_share,
            text_cut_chars=CUT_CHARS,
            sources={one.name: _write(one, encoder, folder, dtype, shard_bytes, progress) for one in scans},
        )
        (folder / MANIFEST).write_text(manifest.to_json())
    return manifest


def encode(
    labelled: Iterable[tuple[int, str]], tokenizer: Tokenizer, dtype: np.dtype
) -> Iterator[tuple[int, np.ndarray]]:
    """Token ids of labelled documents, batch by batch as (label, ids), each document ended by eos.

    Long documents are encoded in pieces, so memory stays bounded.
    """
    for batch in _batches(labelled):
        ids: dict[int, list[int]] = defaultdict(list)
        encoded = tokenizer.encode_batch([piece for _, piece, _ in batch])
        for (label, _, is_last), piece_ids in zip(batch, encoded, strict=True):
            ids[label] += piece_ids
            if is_last:
                ids[label].append(tokenizer.eos_id)
        for label, tokens in ids.items():
            yield label, np.array(tokens, dtype)


def _batches(labelled: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str, bool]]]:
    """Lists of (label, piece, is it the last of its document) of `_BATCH_CHARS` together."""
    batch: list[tuple[int, str, bool]] = []
    size = 0
    for label, text in labelled:
        left = len(text)
        for piece in pieces(text):
            left -= len(piece)
            size += len(piece)
            batch.append((label, piece, left == 0))
            if size >= _BATCH_CHARS:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _check_flags(sources: Mapping[str, Sequence[str | Path]], validation_share: float) -> None:
    if not sources:
        raise RecipeError("No source of text was given", fix="--source en=PATH --source zh=PATH")
    for name in sources:
        if not _NAME.fullmatch(name):
            raise RecipeError(
                f"A source cannot be named {name!r}", why="the name becomes a folder", fix="--source en=PATH"
            )
    if not 0 < validation_share <= 0.5:
        raise RecipeError(
            f"A validation share of {validation_share} is not above 0 and at most 0.5",
            where="--validation-share",
            fix="--validation-share 0.01",
        )


def _load(path: Path) -> Tokenizer:
    return load_ranks(path) if path.suffix == ".tiktoken" else Tokenizer.load(path)


def _train(scans: list[Scanned], vocab_size: int, progress: Progress) -> Tokenizer:
    with progress.task("train the tokenizer on") as advance:
        texts = (advance(len(text.encode())) or text for text in tokenizer_sample(scans))
        return Tokenizer.train(texts, vocab_size)


def _write(
    source: Scanned, encoder: Tokenizer, folder: Path, dtype: np.dtype, shard_bytes: int, progress: Progress
) -> Source:
    """Encode one source into its shards."""
    (folder / source.name).mkdir()
    sizes: Counter[int] = Counter()
    with progress.task(f"encode {source.name}", source.bytes) as advance, ExitStack() as stack:
        writers = {
            fate: stack.enter_context(ShardWriter(folder, f"{source.name}/{split}", dtype, shard_bytes))
            for fate, split in _SPLIT_NAMES.items()
        }
        for fate, ids in encode(_kept(source, sizes, advance), encoder, dtype):
            writers[fate].write(ids)
    splits = {
        split: Split(
            documents=int((source.fates == fate).sum()),
            bytes=sizes[fate],
            tokens=sum(shard.tokens for shard in writers[fate].shards),
            shards=tuple(writers[fate].shards),
        )
        for fate, split in _SPLIT_NAMES.items()
    }
    return Source(files=len(source.files), duplicates=source.duplicates, empty=source.empty, splits=splits)


def _kept(source: Scanned, sizes: Counter[int], advance: Callable[[int], None]) -> Iterator[tuple[int, str]]:
    """(fate, text) of the documents that stay, read a second time; adds up their bytes by fate.

    Raises DataError if a document is not what it was in the first pass.
    """
    index = 0
    for index, document in enumerate(documents(source.files), 1):
        text = document.text
        data = text.encode()
        if (
            index > len(source.fates)
            or xxhash.xxh3_128_digest(data) != source.hashes[index - 1].astype(">u8").tobytes()
        ):
            break
        advance(len(data))
        fate = int(source.fates[index - 1])
        if fate in _SPLIT_NAMES:
            sizes[fate] += len(data)
            yield fate, text
    else:
        if index == len(source.fates):
            return
    raise DataError(
        f"Source {source.name!r} changed while it was read",
        where=", ".join(map(str, source.files[:3])),
        why=f"document {index} is not the same as a moment ago",
        fix="run again when nothing writes to it",
    )
