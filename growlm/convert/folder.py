"""A Hugging Face folder read as GrowLM weights: checked strictly first, then read by rows.

Everything that can be wrong with such a folder is found before a tensor is read, except its values:
a NaN or an infinity is refused where it is met.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Self

import torch
from torch import Tensor

from growlm.checkpoint.format import CONVERT, DTYPES, TensorInfo, TensorReader
from growlm.convert.companions import check_tokenizer
from growlm.convert.dialect import Dialect, ForeignTensor
from growlm.convert.dialects import dialect_of
from growlm.errors import CheckpointError, GrowLMError
from growlm.model.parameters import parameter_table
from growlm.recipe.shape import ModelConfig

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"

Shapes = Mapping[str, tuple[int, ...]]

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors")
_CHUNK_BYTES = 16 << 20
_JSON_CAP = 100_000_000
_FIX = "get the folder again, whole, from where it came from"


def is_folder_of_weights(path: Path) -> bool:
    """Whether a path looks like a Hugging Face folder: it has a config.json."""
    return (path / CONFIG).is_file()


class FolderWeights:
    """The tensors of a folder under GrowLM's names and in its layout (a `Weights`); a context manager.

    Plain tensors are read by rows. Packed ones (Conv1D, fused q/k/v) are read whole and unpacked; the last
    part that was asked for is kept.

    Raises:
        CheckpointError: a file is missing, damaged or outside the folder, config.json and the tensors do
            not agree, or a value that is read is not a finite number.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_json = read_json(folder / CONFIG)
        try:
            self.dialect = dialect_of(self.config_json)
            self.config = self.dialect.read_config(self.config_json)
        except CheckpointError as error:
            error.where = str(folder / error.where)  # it begins with config.json
            raise
        self._files = [TensorReader(path, _FIX) for path in _tensor_files(folder)]
        self._reader = {name: reader for reader in self._files for name in reader.names}
        self._unpacking = Lock()
        self._unpacked: tuple[str, Tensor] = ("", torch.empty(0))
        try:
            self._holder = self._check()
            check_tokenizer(folder, self.config)
        except BaseException:
            self.close()
            raise

    @property
    def files(self) -> list[Path]:
        """The tensor files, in the order of their names."""
        return [reader.path for reader in self._files]

    def dtype(self, name: str) -> torch.dtype:
        """How the tensor is stored that holds a parameter."""
        return DTYPES[self._info(self._holder[name].name).dtype]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows `start` to `stop` (all by default) of a parameter; raises CheckpointError for a NaN."""
        tensor = self._holder[name]
        if tensor.unpack is None:
            return self._finite(tensor.name, self._reader[tensor.name].read(tensor.name, start, stop))
        with self._unpacking:  # growth reads from several threads
            if self._unpacked[0] != name:
                whole = self._finite(tensor.name, self._reader[tensor.name].read(tensor.name))
                self._unpacked = name, tensor.unpack(whole, name)
            return self._unpacked[1][start:stop]

    def close(self) -> None:
        """Let go of the files."""
        for reader in self._files:
            reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _info(self, foreign: str) -> TensorInfo:
        return self._reader[foreign].info(foreign)

    def _finite(self, foreign: str, rows: Tensor) -> Tensor:
        if not _is_finite(rows):
            raise CheckpointError(
                f"{foreign} holds values that are not numbers",
                where=str(self._reader[foreign].path),
                why="a NaN or an infinity spreads to every logit",
                fix=_FIX,
            )
        return rows

    def _check(self) -> dict[str, ForeignTensor]:
        """Which tensor holds each parameter. Raises CheckpointError unless the tensors are the config's."""
        found = {name: self._info(name) for name in self._reader}
        shapes = {name: info.shape for name, info in found.items()}
        problem = _misfit(self.dialect, self.config, shapes)
        if problem:
            where, liar = str(self.folder / CONFIG), _liar(self.dialect, self.config_json, shapes)
            if liar:
                key, value = liar
                said = self.config_json.get(key)
                what = f"{CONFIG} says {key} = {json.dumps(said)}, the tensors say {json.dumps(value)}"
                raise CheckpointError(what, where=where, why=problem, fix=_FIX)
            raise CheckpointError(f"{CONFIG} does not fit the tensors", where=where, why=problem, fix=_FIX)
        tensors = self.dialect.tensors_in(self.config, shapes)
        for tensor in tensors:
            if not DTYPES[found[tensor.name].dtype].is_floating_point:
                raise CheckpointError(
                    f"{tensor.name} is stored as {found[tensor.name].dtype}, which is not a kind of weight",
                    where=str(self._reader[tensor.name].path),
                    fix=CONVERT,
                )
        self._check_tied(shapes)
        return {part: tensor for tensor in tensors for part in tensor.parts}

    def _check_tied(self, shapes: Shapes) -> None:
        """Raise CheckpointError if a tied head is stored too and is another: transformers would use it."""
        if not self.config.tied:
            return
        untied = self.dialect.tensors_in(self.config.with_(tied=False), shapes)
        named = {tensor.parts[0]: tensor.name for tensor in untied}
        head, embedding = named["lm_head.weight"], named["embedding.weight"]
        if head in shapes and not self._same(head, embedding):
            key = self.dialect.keys.get("tied", "tied")
            raise CheckpointError(
                f"{CONFIG} says {key} = true, and {head} differs from {embedding}",
                where=str(self.folder / CONFIG),
                why="a tied model has one tensor for both",
                fix=f"set {key} to false in {CONFIG} to keep the head, or remove {head} from the tensors",
            )

    def _same(self, first: str, second: str) -> bool:
        """Whether two tensors hold the same bits; read a few rows at a time."""
        one, other = self._info(first), self._info(second)
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            return False
        rows = one.shape[0]
        step = max(1, _CHUNK_BYTES * rows // max(1, one.bytes))
        return all(
            torch.equal(
                *(
                    self._reader[n].read(n, at, min(rows, at + step)).view(torch.uint8)
                    for n in (first, second)
                )
            )
            for at in range(0, rows, step)
        )


def _is_finite(rows: Tensor) -> bool:
    """Whether no value is a NaN or infinite, by the bits: ten times as fast as asking of each value.

    Those of either sign, read as whole numbers, are the largest: from infinity's on.
    """
    if rows.numel() == 0 or not rows.is_floating_point():
        return True
    infinity = torch.tensor([torch.inf, -torch.inf], dtype=rows.dtype)
    found, limit = (t.contiguous().view(_BITS[t.itemsize]).numpy() for t in (rows, infinity))
    unsigned = f"u{rows.itemsize}"
    return bool(found.max() < limit[0] and found.view(unsigned).max() < limit.view(unsigned)[1])


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError if it is missing, too large or something else."""
    try:
        if path.stat().st_size > _JSON_CAP:
            raise ValueError(f"it is larger than {_JSON_CAP} bytes")
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path.name} cannot be read", where=str(path), why=str(error), fix=_FIX
        ) from error
    return value


# --- files -----------------------------------------------------------------------------------------


def _tensor_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: the single one, or those of the index, which must agree with it."""
    if (folder / SINGLE).is_file():
        return [_inside(folder, SINGLE)]
    if not (folder / INDEX).is_file():
        raise _no_tensors(folder)
    where = str(folder / INDEX)
    listed = read_json(folder / INDEX).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(f, str) for f in listed.values()):
        raise CheckpointError("The index has no table of tensors", where=where, fix=_FIX)
    paths = {file: _inside(folder, file) for file in sorted(set(listed.values()))}
    for file, path in paths.items():
        with TensorReader(path, _FIX) as reader:
            names = set(reader.names)
        wrong = names ^ {name for name, at in listed.items() if at == file}
        if wrong:
            side = "holds a tensor that the index does not name" if wrong & names else "misses a tensor"
            raise CheckpointError(f"{file} {side}: {min(wrong)}", where=where, fix=_FIX)
    return list(paths.values())


def _inside(folder: Path, file: str) -> Path:
    """The path of a file of the folder; links may lead no further than into a hub cache's own blobs."""
    path = folder / file
    allowed = (folder.resolve(), folder.resolve().parent.parent / "blobs")
    if not _PLAIN_NAME.fullmatch(file) or path.resolve().parent not in allowed:
        raise CheckpointError(
            f"{file} is outside the folder",
            where=str(folder / INDEX if (folder / INDEX).is_file() else folder),
            why="a model folder may only name files of its own",
            fix=_FIX,
        )
    if not path.is_file():
        raise CheckpointError(f"{file} is missing", where=str(folder), why="the index names it", fix=_FIX)
    return path


def _no_tensors(folder: Path) -> CheckpointError:
    pickled = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern))
    if not pickled:
        return CheckpointError(
            f"There is no {SINGLE} here, and no index of shards", where=str(folder), fix=_FIX
        )
    return CheckpointError(
        "The weights are in an old pickled file, which can run any code when it is opened",
        where=str(folder / pickled[0]),
        why="GrowLM reads safetensors only",
        fix='on a machine that you can lose: python -c "from transformers import AutoModelForCausalLM as M; '
        "M.from_pretrained('FOLDER').save_pretrained('SAFE')\"",
    )


# --- does config.json tell the truth? ---------------------------------------------------------------


def _misfit(dialect: Dialect, config: ModelConfig, found: Shapes) -> str:
    """The first tensor that is missing, left over or of another shape than the config says; empty if none.

    Sizes that no such files can hold are found first, in no more memory than the files' headers take.
    """
    if config.n_layers > len(found):
        return f"the config gives {config.n_layers} layers, and there are {len(found)} tensors"
    stored = sum(map(math.prod, found.values()))
    for name, parameter in parameter_table(config).items():
        if parameter.numel > stored:
            return f"{name} would be {_times(parameter.shape)}, and there are {stored} values in all"
    expected = {t.name: t.shape for t in dialect.tensors_in(config, found)}
    for name, shape in expected.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != shape:
            return f"{name} is {_times(found[name])}, the config gives {_times(shape)}"
    for name in found:
        if name not in expected and not dialect.ignores(name, config):
            return f"{name} is not a tensor of this shape of model"
    return ""


def _liar(dialect: Dialect, config_json: Mapping[str, Any], found: Shapes) -> tuple[str, Any] | None:
    """The one key of config.json, and the value for it, with which every tensor would fit."""
    for key in dialect.keys.values():
        for value in _candidates(config_json.get(key), config_json, found):
            try:
                config = dialect.read_config({**config_json, key: value})
                if not _misfit(dialect, config, found):
                    return key, value
            except (GrowLMError, ArithmeticError):
                continue
    return None


def _candidates(said: Any, config_json: Mapping[str, Any], found: Shapes) -> Iterator[Any]:
    """Values that a key could have by the tensors: their sizes, quotients of them, the number of layers."""
    if isinstance(said, bool):
        yield not said
        return
    if said is not None and not isinstance(said, int):
        return
    sizes = {n for shape in found.values() for n in shape}
    layers = {int(n) + 1 for name in found for n in re.findall(r"\.(\d+)\.", name)}
    units = {v for v in config_json.values() if type(v) is int and 0 < v <= max(sizes, default=0)}
    yield from sorted(sizes | {max(layers, default=0)} | {n // u for n in sizes for u in units if n % u == 0})


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
