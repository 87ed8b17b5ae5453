"""Which files a source means, and each of them as a stream of bytes, decompressed on the fly."""

from __future__ import annotations

import errno
import glob
import gzip
import io
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from growlm.data.extra import extra
from growlm.data.reading.urls import Url, find, is_data, is_url
from growlm.errors import DataError

_KINDS = {
    ".txt": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".txt.gz": "text",
    ".jsonl.gz": "jsonl",
    ".jsonl.zst": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
SUFFIXES = tuple(_KINDS)
"""What can be read: plain text, one JSON object a line, Parquet, and Arrow as in Hugging Face data sets."""

_NOT_READABLE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)

File = Path | Url
"""A file here, or elsewhere."""


def expand(paths: Iterable[str | Path], suffixes: tuple[str, ...] = SUFFIXES) -> list[File]:
    """The files meant by files, folders and globs, each path's in sorted order, no file twice.

    A folder means all files below it with one of the `suffixes`; hidden ones and others are left out.
    Raises DataError: nothing there, or a file that was named and has an unknown extension.
    """
    found: dict[File, None] = {}
    for path in paths:
        try:
            files = find(str(path), suffixes) if is_url(path) else _matches(Path(path), suffixes)
        except OSError as error:
            raise _unreadable(Path(error.filename or path), error) from error
        if not files:
            raise DataError(
                "There is no text here",
                where=str(path),
                why="it is no file, no folder with readable files, and no glob that matches any",
                fix=f"give a path to {', '.join(suffixes)}",
            )
        for file in files:
            _check_suffix(file, suffixes)
            found[file] = None
    return list(found)


def others(paths: Iterable[str | Path], suffixes: tuple[str, ...]) -> dict[str, int]:
    """How many files of other kinds are below the folders among `paths`, by extension, most first.

    Hidden files are not counted; a link to a folder, which is not followed, is. Folders of a store are not
    looked at. Raises OSError: a folder cannot be read, for which `expand` has its message.
    """
    found: Counter[str] = Counter()
    for path in paths:
        folders = [] if is_url(path) else filter(Path.is_dir, _meant(Path(path)))
        for folder in folders:
            for root, linked, names in _walk(folder):
                found["link to a folder"] += sum(Path(root, name).is_symlink() for name in linked)
                left = (Path(name) for name in names if not name.startswith("."))
                found.update(
                    name.suffix or "without extension" for name in left if not is_data(name.name, suffixes)
                )
    return {name: count for name, count in found.most_common() if count}


def file_of(name: str) -> File:
    """The file that `str` of it names."""
    return Url(name) if is_url(name) else Path(name)


def kind(path: File) -> str:
    """`text`, `jsonl`, `parquet` or `arrow`. Raises DataError for an unknown extension."""
    _check_suffix(path, SUFFIXES)
    return _KINDS[max((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), key=len)]


@contextmanager
def open_bytes(path: File) -> Iterator[BinaryIO]:
    """The bytes of a file, decompressed if its name ends in .gz or .zst.

    Raises DataError: unreadable, or the compressed stream is cut short or damaged.
    """
    damaged: tuple[type[Exception], ...] = (EOFError, zlib.error, gzip.BadGzipFile)
    try:
        with path.open("rb") as raw:
            if path.suffix == ".gz":
                yield cast(BinaryIO, gzip.GzipFile(fileobj=raw))
            elif path.suffix == ".zst":
                zstandard = extra("zstandard", path)
                damaged += (zstandard.ZstdError,)
                stream = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
                yield cast(BinaryIO, io.BufferedReader(stream, 1 << 20))
            else:
                yield cast(BinaryIO, raw)
    except damaged as error:
        raise DataError(
            "A compressed file is damaged or cut short", where=str(path), why=str(error), fix="fetch it again"
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _check_suffix(path: File, suffixes: tuple[str, ...]) -> None:
    if not path.name.endswith(suffixes):
        raise DataError(
            f"The extension of {path.name!r} says no format that can be read",
            where=str(path),
            fix=f"rename or convert it to one of {', '.join(suffixes)}",
        )


def _matches(path: Path, suffixes: tuple[str, ...]) -> Sequence[File]:
    """The files that a path, a folder or a glob means."""
    return [file for each in _meant(path) for file in (_below(each, suffixes) if each.is_dir() else [each])]


def _meant(path: Path) -> list[Path]:
    """The files and folders that a path or a glob names."""
    if path.exists():
        return [path]
    # Path.glob takes no absolute pattern
    return [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207


def _below(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Readable kinds of files below a folder, sorted by path, without hidden files and folders."""
    walked = _walk(folder)
    return sorted(Path(root, name) for root, _, names in walked for name in names if is_data(name, suffixes))


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` without hidden folders. Raises OSError."""
    for root, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield root, folders, names


def _raise(error: OSError) -> None:
    raise error


def _unreadable(path: File, error: OSError) -> DataError:
    return DataError(
        "A source cannot be read",
        where=str(path),
        why=error.strerror or str(error),
        fix="check that it is a file or folder and readable for this user"
        if error.errno in _NOT_READABLE
        else "try again once the disk or the store answers",
    )
