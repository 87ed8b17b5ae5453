"""`manifest.json` of a prepared folder: what it holds, and a hash of every block of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import xxhash
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from growlm.errors import DataError

MANIFEST = "manifest.json"
FORMAT = "growlm-data"
VERSION = 1
BLOCK_BYTES = 1 << 20
"""Shards are hashed and verified in blocks of this many bytes."""
SPLITS = ("train", "valid")


# A plain name, at most one folder deep: a manifest cannot point outside of its own folder.
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
FileName = Annotated[str, Field(pattern=rf"^{_NAME}(/{_NAME})?$")]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TokenizerEntry(_Entry):
    """The tokenizer that wrote the ids."""

    file: FileName
    hash: str
    vocab_size: int
    eos_id: int


class Shard(_Entry):
    """One file of little-endian token ids."""

    file: FileName
    tokens: int
    bytes: int
    blocks: tuple[str, ...]
    """xxh3-64 of each `BLOCK_BYTES` of the file, as 16 hex digits."""


class Split(_Entry):
    """The training or validation part of a source: its shards in order are one stream of tokens."""

    documents: int
    bytes: int
    tokens: int
    shards: tuple[Shard, ...]


class Source(_Entry):
    """One named source of text."""

    files: int
    duplicates: int
    empty: int
    splits: dict[str, Split]


class Manifest(_Entry):
    """A prepared folder."""

    format: str = FORMAT
    version: int = VERSION
    tokenizer: TokenizerEntry
    dtype: str
    validation_share: float
    text_cut_chars: int
    """Text files longer than twice this were cut into documents of one to two times this many characters."""
    sources: dict[str, Source]

    @property
    def fingerprint(self) -> str:
        """xxh3-128 of the content, independent of how the file is laid out."""
        return xxhash.xxh3_128_hexdigest(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode())

    def to_json(self) -> str:
        """What `manifest.json` holds."""
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read the manifest of a folder. Raises DataError: none there, damaged, or of another version."""
        path = folder / MANIFEST
        try:
            manifest = cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DataError(
                "This is no folder of token shards",
                where=str(path),
                why=error.strerror or str(error),
                fix=f"write one: growlm data prepare {folder} --source NAME=PATH",
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(
                "The manifest of a data folder is damaged",
                where=f"{path}: {'.'.join(map(str, first['loc'])) or 'top'}",
                why=first["msg"],
                fix=f"prepare the folder again: growlm data prepare {folder} ...",
            ) from error
        if (manifest.format, manifest.version) != (FORMAT, VERSION):
            raise DataError(
                "A data folder has another format",
                where=str(path),
                why=f"it is {manifest.format} {manifest.version}; this GrowLM reads {FORMAT} {VERSION}",
                fix="prepare it again with this version",
            )
        return manifest
