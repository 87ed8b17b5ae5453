"""A model to ask, by what a user names: a run, a checkpoint, a Hugging Face folder, an endpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import torch
import xxhash

from growlm.checkpoint.disk import hash_file
from growlm.checkpoint.manifest import MANIFEST
from growlm.convert.companions import TOKENIZER, companions_for, companions_of
from growlm.convert.dialects import dialect_of
from growlm.convert.folder import CONFIG, is_folder_of_weights, read_json
from growlm.errors import CheckpointError, RecipeError
from growlm.inference.endpoint import Endpoint
from growlm.inference.facts import is_endpoint
from growlm.inference.foreign import Foreign, load_foreign
from growlm.inference.local import Local
from growlm.inference.packed import pack
from growlm.inference.requests import Model
from growlm.inference.text import Text
from growlm.inference.workers import Workers
from growlm.model.decoder import Decoder
from growlm.train.initial import foreign_model, hash_folder
from growlm.train.restore import find_checkpoint, find_tokenizer, masked_model, trained_context
from growlm.train.stored import stored_companions

Precision = Literal["auto", "fp32", "bf16"]
SCORING = 1
"""Counts changes of how answers are found: those of before are asked for again."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def open_model(
    source: str | Path,
    *,
    context: int | None = None,
    precision: Precision = "auto",
    data: Path | str | None = None,
    device: str = "auto",
    workers: int = 1,
) -> Model:
    """A model to ask.

    Args:
        source: a run folder (its newest checkpoint), a checkpoint, a Hugging Face folder, or the address
            of an OpenAI-compatible endpoint, `http://HOST:PORT/v1`.
        context: tokens that it sees; without it what it was trained on.
        precision: of weights and computation; "auto" is bf16 on a GPU and fp32 on a CPU.
        data: prepared data with the tokenizer, for a checkpoint that has lost it.
        device: "cpu", "cuda", "cuda:1"; "auto" is a GPU if there is one.
        workers: processes, each with a copy of the model; on GPUs each has the next one.

    Raises CheckpointError: there is no model here, or it is damaged. RecipeError: it cannot be asked in this
    way. EndpointError: nobody answers there.
    """
    if is_endpoint(source):
        return Endpoint(str(source), context=context)
    _device(device)  # refuses what there is not, before processes start
    if workers > 1:
        settings = {"source": str(source), "context": context, "precision": precision}
        return Workers(settings | {"data": data and str(data)}, workers, _devices(device))
    path, place, dtype = Path(source), _device(device), _dtype(precision, _device(device))
    if is_folder_of_weights(path) and not _is_ours(path):
        model, text, trained = load_foreign(path, dtype, place)
        context = context or trained
        identity = _identity(hash_folder(path), text, dtype, context)
        return Foreign(model, text, context=context, identity=identity)
    return open_local(path, context=context, precision=precision, data=data, device=device)


def open_local(
    source: str | Path,
    *,
    context: int | None = None,
    precision: Precision = "auto",
    data: Path | str | None = None,
    device: str = "auto",
) -> Local:
    """A model of ours in this process: of a run, a checkpoint, or a folder that GrowLM can read."""
    path, place = Path(source), _device(device)
    dtype = _dtype(precision, place)
    if is_folder_of_weights(path):
        decoder, text, trained, weights = _of_folder(path)
    else:
        decoder, text, trained, weights = _of_checkpoint(path, None if data is None else Path(data))
    context = _context(context, trained, decoder, path)
    identity = _identity(weights, text, dtype, context)
    decoder = pack(decoder.to(place, dtype).eval().requires_grad_(False))
    return Local(decoder, text, context=context, identity=identity)


def _identity(weights: str, text: Text, dtype: torch.dtype, context: int) -> str:
    """One hash of all that decides an answer."""
    framed = (text.bos_id, text.prefix_id, sorted(text.ends), text.splits_special)
    parts = (SCORING, weights, text.json, framed, dtype, context)
    return xxhash.xxh3_128_hexdigest("\n".join(map(str, parts)).encode())


def _is_ours(path: Path) -> bool:
    """Whether a folder is of a kind that GrowLM has a table for."""
    try:
        dialect_of(read_json(path / CONFIG))
    except CheckpointError:
        return False
    return True


def _dtype(precision: Precision, device: torch.device) -> torch.dtype:
    return DTYPES[("bf16" if device.type == "cuda" else "fp32") if precision == "auto" else precision]


def _devices(device: str) -> list[str]:
    """The devices that workers take in turn."""
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [device]


def _device(device: str) -> torch.device:
    """Raises RecipeError: it is none, or none that there is."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    match = re.fullmatch(r"cpu|cuda(?::(\d{1,4}))?", device)
    if match is None:
        raise RecipeError(
            f"{device!r} is no device", where="--device", fix="--device cpu, cuda, cuda:1, auto"
        )
    if device != "cpu" and int(match[1] or 0) >= torch.cuda.device_count():
        raise RecipeError(
            f"There is no {device} here",
            where="--device",
            why=f"torch {torch.__version__} sees {torch.cuda.device_count()} GPUs",
            fix="--device cpu",
        )
    return torch.device(device)


def _of_folder(path: Path) -> tuple[Decoder, Text, int, str]:
    """Model, tokenizer, context and hash of the weights of a Hugging Face folder."""
    files = companions_of(path, read_json(path / CONFIG))
    text = Text(files, str(path))
    decoder = foreign_model(path)
    return decoder, text, decoder.config.max_positions or 2048, hash_folder(path)


def _of_checkpoint(path: Path, data: Path | None) -> tuple[Decoder, Text, int, str]:
    """The same of a checkpoint, masked as it was in training."""
    if not path.exists():
        raise CheckpointError("There is nothing here", where=str(path), fix="name a run, or a model's folder")
    checkpoint = find_checkpoint(path)
    files = stored_companions(checkpoint.path)
    if TOKENIZER not in files:
        files = files | companions_for(find_tokenizer(checkpoint, data), None)
    decoder, context = masked_model(checkpoint), trained_context(checkpoint)
    return decoder, Text(files, str(checkpoint.path)), context, hash_file(checkpoint.path / MANIFEST)


def _context(asked: int | None, trained: int, decoder: Decoder, path: Path) -> int:
    """The context to use. Raises RecipeError: the model has not learned so many positions."""
    most = decoder.config.max_positions if decoder.position is not None else None
    if asked is not None and most is not None and asked > most:
        raise RecipeError(
            f"{path} has learned {most} positions, not {asked}", where="--context", fix=f"--context {most}"
        )
    return min(trained, most or trained) if asked is None else asked
