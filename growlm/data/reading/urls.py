"""Files in object stores and on hubs (`s3://`, `hf://`, `https://`, ...), through fsspec, used like paths."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import xxhash

from growlm.data.extra import extra
from growlm.errors import DataError, GrowLMError

_READ = 1 << 20
_VERSIONS = ("ETag", "etag", "checksum", "md5", "sha", "blob_id", "mtime", "LastModified", "last_modified")


class Stat(NamedTuple):
    """What a path's `stat` says, of a file elsewhere."""

    st_size: int
    st_mtime_ns: int
    """A hash of what the store says about the file's version; 0 if it says nothing."""


class Url(str):
    """An address with a protocol; has what the readers use of a `Path`.

    It is read as fsspec reads it: credentials are those of the environment, and nothing is cached on disk.
    """

    __slots__ = ()

    @property
    def name(self) -> str:
        """The last part of the path, without a query."""
        return posixpath.basename(self.partition("?")[0])

    @property
    def suffix(self) -> str:
        """The name's last extension with its dot."""
        return posixpath.splitext(self.name)[1]

    def absolute(self) -> Url:
        """Itself."""
        return self

    def stat(self) -> Stat:
        """Size and version. Raises DataError: it cannot be reached."""
        with _remote(self) as (system, path):
            info = system.info(path)
        if info.get("size") is None:
            raise DataError("A server does not say how large a file is", where=self, fix="copy the file here")
        said = [info[key] for key in _VERSIONS if info.get(key)]
        version = xxhash.xxh3_64_intdigest(repr(said).encode()) >> 1 if said else 0
        return Stat(int(info["size"]), version)

    def open(self, mode: str = "rb") -> BinaryIO:
        """The file as a stream of bytes that can seek. Raises DataError: it cannot be reached."""
        with _remote(self) as (system, path):
            return io.BufferedReader(_Stream(system.open(path, mode)), _READ)


class _Stream(io.RawIOBase):
    """A file of fsspec as the standard library's streams are; every error of reading is an OSError."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._inner.seekable()

    def readinto(self, buffer: Any) -> int:
        with _os_errors():
            data = self._inner.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with _os_errors():
            return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()

    def close(self) -> None:
        self._inner.close()
        super().close()


@contextmanager
def _os_errors() -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # of the store's library
        raise OSError(f"{type(error).__name__}: {error}"[:300]) from error


def is_url(path: object) -> bool:
    """Whether a path names a protocol."""
    return "://" in str(path)


def is_data(name: str, suffixes: Sequence[str]) -> bool:
    """Whether a file in a folder that was named is meant; hidden ones and caches of `datasets` are not."""
    return (
        name.endswith(tuple(suffixes))
        and not name.startswith(".")
        and not (name.startswith("cache-") and name.endswith(".arrow"))
    )


def find(pattern: str, suffixes: Sequence[str]) -> list[Url]:
    """The files that an address of a file, a folder or a glob means, sorted; see `files.expand`.

    Raises DataError: the store cannot be reached, or a package for its protocol is missing.
    """
    with _remote(pattern) as (system, path):
        if any(sign in path for sign in "*?["):
            paths = [found for found in system.glob(path) if system.isfile(found)]
        elif path.endswith(tuple(suffixes)) or not system.isdir(path):  # a web page is a folder, if asked
            paths = [path] if system.exists(path) else []
        else:
            inside = {found: found[len(path) :].strip("/").split("/") for found in system.find(path)}
            paths = [
                found
                for found, (*folders, name) in inside.items()
                if is_data(name, suffixes) and not any(folder.startswith(".") for folder in folders)
            ]
        return [Url(system.unstrip_protocol(found)) for found in sorted(paths)]


@contextmanager
def _remote(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of an address, and the path in it."""
    fsspec = extra("fsspec.core", url)
    try:
        yield fsspec.url_to_fs(str(url))
    except GrowLMError:
        raise
    except ImportError as error:
        raise DataError(
            f"Reading {url.partition('://')[0]}:// needs another package",
            where=str(url),
            why=str(error),
            fix='pip install "growlm[data]", and the package that is named above',
        ) from error
    except Exception as error:  # every store has errors of its own, many of them no OSError
        raise DataError(
            "A source cannot be read",
            where=str(url),
            why=f"{type(error).__name__}: {error}"[:300],
            fix="check the address, the network and the credentials in the environment",
        ) from error
