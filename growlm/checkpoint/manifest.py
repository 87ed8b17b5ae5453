"""The manifest: what a checkpoint is and the hash of every byte of it, its own included. No torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import xxhash
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from growlm.checkpoint.disk import human_bytes
from growlm.checkpoint.tiling import tiling_problem
from growlm.errors import CheckpointError

if TYPE_CHECKING:
    from growlm.checkpoint.format import FileInfo

MANIFEST = "manifest.json"
VERSION = 2
SIZE_CAP = 1_000_000_000
"""Bytes of a manifest, several times what a thousand ranks need; a longer one is not written and not read."""
_SEAL = re.compile(rb'\{"xxh3":"([0-9a-f]{32})",\n')

Count = Annotated[int, Field(ge=0)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]  # a plain name: no path can leave
Object = dict[str, JsonValue]
Places = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
"""Of the pieces in one file: name -> the piece's first corner in the tensor, the tensor's whole shape."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FileRecord(_Strict):
    """One file of the checkpoint: its size and xxh3-128."""

    bytes: Count
    xxh3: Hash


class PieceRecord(_Strict):
    """A rectangle of a tensor: the file it is in, where its bytes begin in that file, and their xxh3-128.

    `start` is its first corner in the tensor. In the file it is a tensor of its own, of shape `shape`.
    """

    file: FileName
    start: list[Count]
    shape: list[Count]
    offset: Count
    bytes: Count
    xxh3: Hash


class TensorRecord(_Strict):
    """One tensor: its whole shape, and the pieces that make it up, each in another file."""

    dtype: str
    shape: list[Count]
    pieces: list[PieceRecord]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        problem = tiling_problem(self.shape, [(piece.start, piece.shape) for piece in self.pieces])
        if len({piece.file for piece in self.pieces}) < len(self.pieces):
            problem = problem or "two of its pieces are in one file"
        if problem:
            raise ValueError(problem)
        return self


class _WholeTensor(_Strict):
    """A tensor in a manifest of version 1, where each was in one file."""

    file: FileName
    dtype: str
    shape: list[Count]
    offset: Count
    bytes: Count
    xxh3: Hash

    def record(self) -> TensorRecord:
        """The same as one piece."""
        piece = PieceRecord(start=[0] * len(self.shape), **self.model_dump(exclude={"dtype"}))
        return TensorRecord(dtype=self.dtype, shape=self.shape, pieces=[piece])


def tensor_records(
    files: Mapping[str, FileInfo], places: Mapping[str, Places] | None = None
) -> dict[str, TensorRecord]:
    """The records of what was written into `files`; `places` has, by file, what is not a whole tensor.

    Raises ValueError if a tensor is not there exactly once: a mistake in the calling code.
    """
    kinds: dict[str, set[tuple[str, tuple[int, ...]]]] = {}
    pieces: dict[str, list[PieceRecord]] = {}
    for file, info in files.items():
        for name, tensor in info.tensors.items():
            start, whole = (places or {}).get(file, {}).get(name, ((0,) * len(tensor.shape), tensor.shape))
            kinds.setdefault(name, set()).add((tensor.dtype, tuple(whole)))
            held = pieces.setdefault(name, [])
            if tensor.bytes or (0 in whole and not held):
                place = {"offset": tensor.offset, "bytes": tensor.bytes, "xxh3": tensor.xxh3}
                held.append(PieceRecord(file=file, start=list(start), shape=list(tensor.shape), **place))
    for name, found in kinds.items():
        if len(found) > 1:
            raise ValueError(f"{name} has several dtypes or shapes: {found}")
    return {
        name: TensorRecord(dtype=dtype, shape=list(whole), pieces=pieces[name])
        for name, ((dtype, whole),) in kinds.items()
    }


class Manifest(_Strict):
    """Everything that a run needs to go on, beside the tensors themselves."""

    version: Literal[2] = VERSION
    created: float = Field(description="Unix seconds.")
    step: Count = Field(description="Optimizer steps of the whole run done so far.")
    stage: Count = Field(description="Index of the stage.")
    stage_step: Count = Field(description="Steps done in this stage.")
    tokens: Count = Field(description="Tokens trained on so far, all stages.")
    updates: Count = Field(description="Steps whose update was applied.")
    skipped: Count = Field(description="Steps skipped by the guard.")
    train_seconds: float = Field(description="Seconds spent in steps, all incarnations.")
    flops: float = Field(description="Model FLOPs so far, all stages.")
    model: Object = Field(description="ModelConfig.to_dict() of the tensors stored here.")
    mask: float = Field(description="The mask ramp of a masked growth: 0 hidden, 1 fully in.", ge=0, le=1)
    lineage: list[Object] = Field(description="Every growth so far: step, from, to, operator, certificate.")
    births: Object = Field(
        description="Per axis the ranges [start, stop, update] that were born at an update."
    )
    guard: Object = Field(description="State of the spike guard.")
    recipe_hash: str
    data_fingerprint: str
    tokenizer_hash: str
    init: str | None = Field(None, description="Hash of the weights that the first stage started from.")
    environment: Object = Field(
        description="torch, threads, device, precision, growlm: what the bits depend on."
    )
    boundary: Literal["before_growth", "after_growth"] | None = None
    files: dict[FileName, FileRecord] = Field(description="Every file but this one, by name.")
    tensors: dict[str, TensorRecord] = Field(description="Every tensor of every file, by name.")

    @model_validator(mode="after")
    def _pieces_are_in_the_files(self) -> Self:
        for name, tensor in self.tensors.items():
            for piece in tensor.pieces:
                file = self.files.get(piece.file)
                if file is None or piece.offset + piece.bytes > file.bytes:
                    raise ValueError(f"a piece of {name} is not in {piece.file}")
        return self

    def to_bytes(self) -> bytes:
        """Canonical JSON, one field per line; the first is the hash of all bytes after its line.

        Raises CheckpointError if it is longer than `load` accepts.
        """
        fields = sorted(self.model_dump(mode="json").items())
        body = ",\n".join(f"{_json(key)}:{_json(value)}" for key, value in fields).encode() + b"}\n"
        raw = b'{"xxh3":"%s",\n%s' % (xxhash.xxh3_128_hexdigest(body).encode(), body)
        if len(raw) > SIZE_CAP:
            pieces = sum(len(tensor.pieces) for tensor in self.tensors.values())
            raise CheckpointError(
                "The manifest of this checkpoint would be too long to be read again",
                why=f"{pieces:,} pieces take {human_bytes(len(raw))}, {human_bytes(SIZE_CAP)} are allowed",
                fix="cut the tensors into fewer pieces: fewer ranks share one with a larger layout.replicas",
            )
        return raw

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check a manifest file.

        Raises:
            CheckpointError: it is missing, unreadable, damaged, or of another format version.
        """
        try:
            size = path.stat().st_size
            if size > SIZE_CAP:
                raise ValueError(f"it is {human_bytes(size)} long")
            return cls._parse(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            message = first["msg"].removeprefix("Value error, ")
            why = ": ".join([".".join(map(str, first["loc"])), message] if first["loc"] else [message])
            raise CheckpointError("A manifest does not fit its format", where=str(path), why=why) from error
        except FileNotFoundError as error:
            raise CheckpointError("A manifest is missing", where=str(path), why="missing") from error
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError("A manifest cannot be read", where=str(path), why=str(error)) from error

    @classmethod
    def _parse(cls, raw: bytes) -> Self:
        seal = _SEAL.match(raw)
        if seal is None or xxhash.xxh3_128_hexdigest(raw[seal.end() :]).encode() != seal[1]:
            raise ValueError("its hash does not match: bytes were changed or lost")
        fields = json.loads(b"{" + raw[seal.end() :])
        if fields.get("version") == 1:
            tensors = TypeAdapter(dict[str, _WholeTensor]).validate_python(fields.get("tensors"))
            records = {name: tensor.record() for name, tensor in tensors.items()}
            fields |= {"version": VERSION, "tensors": records}
        if fields.get("version") != VERSION:
            raise ValueError(
                f"it has format version {fields.get('version')}, this GrowLM reads 1 to {VERSION}"
            )
        return cls.model_validate(fields)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
