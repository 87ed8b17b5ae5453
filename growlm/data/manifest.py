"""`manifest.json` of a prepared folder: what it holds, and a hash of every block of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import xxhash
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from growlm.errors import DataError

MANIFEST = "manifest.json"
FORMAT = "growlm-data"
VERSION = 2
"""1, of before there were sources of examples, can still be read."""
BLOCK_BYTES = 1 << 20
"""Shards are hashed and verified in blocks of this many bytes."""
SPLITS = ("train", "valid")
MARK = 1 << 31
"""Set in a stored token id of an example: its objective (a signal, an answer) learns this token."""


Kind = Literal["text", "signals", "instructions"]
"""Running text; or examples, which are never cut: propositions with their truth, prompts with answers."""


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
    signal_ids: tuple[int, int] | None = None
    """Ids of the tokens that say true and false, where the tokenizer has them."""


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


class Step(_Entry):
    """What one step of the preparation did to a source."""

    name: str
    documents_in: int
    documents_out: int
    bytes_in: int
    bytes_out: int
    reasons: dict[str, int] = {}
    """Documents that were left out, or changed, by reason."""


class Source(_Entry):
    """One named source."""

    kind: Kind = "text"
    files: int
    duplicates: int
    empty: int
    steps: tuple[Step, ...] = ()
    """In the order in which they ran."""
    licenses: dict[str, int] = {}
    """Documents by what they, or the command, say about their licence."""
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
        content = self.model_dump(mode="json", exclude_unset=self.version == 1)
        return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())

    def dtype_of(self, source: str) -> np.dtype:
        """How the token ids of a source are stored; those of examples have room for `MARK`."""
        name = self.dtype if self.sources[source].kind == "text" else "uint32"
        return np.dtype(name).newbyteorder("<")

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
        if manifest.format != FORMAT or not 1 <= manifest.version <= VERSION:
            raise DataError(
                "A data folder has another format",
                where=str(path),
                why=f"it is {manifest.format} {manifest.version}; this GrowLM reads {FORMAT} {VERSION}",
                fix="prepare it again with this version",
            )
        return manifest
