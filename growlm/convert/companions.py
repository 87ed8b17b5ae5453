"""The small files beside the weights: the tokenizer, its settings, how to generate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from growlm.checkpoint.disk import disk_errors
from growlm.data.tokenizer import PAD, Tokenizer
from growlm.data.tokenizer_files import SETTINGS, TOKENIZER, tokenizer_files
from growlm.errors import CheckpointError
from growlm.recipe.shape import ModelConfig

GENERATION, GROWTH = "generation_config.json", "growth.json"
COMPANIONS = (
    TOKENIZER,
    GENERATION,
    GROWTH,
    SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)
"""Files that go with a model wherever it goes, as they are."""

_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def companions_of(folder: Path, config_json: Mapping[str, Any] | None = None) -> dict[str, bytes]:
    """The companions in a folder, and the special ids of config.json where nothing else says them."""
    with disk_errors(folder):
        files = {name: (folder / name).read_bytes() for name in COMPANIONS if (folder / name).is_file()}
    if config_json is not None and GENERATION not in files:
        files[GENERATION] = to_json({key: config_json[key] for key in _IDS if key in config_json})
    return files


def companions_for(tokenizer: Tokenizer, context: int | None) -> dict[str, bytes]:
    """What transformers' AutoTokenizer and `generate` need to use one of GrowLM's tokenizers."""
    ids = {"bos_token_id": tokenizer.eos_id, "eos_token_id": tokenizer.eos_id}
    if PAD in tokenizer.special_ids:
        ids["pad_token_id"] = tokenizer.special_ids[PAD]
    return tokenizer_files(tokenizer, context) | {GENERATION: to_json(ids)}


def special_ids(files: Mapping[str, bytes]) -> dict[str, Any]:
    """bos, eos and pad ids for config.json; null where there is none, or a class would put its own."""
    try:
        said = json.loads(files.get(GENERATION, b"{}"))
    except ValueError as error:
        raise CheckpointError(f"{GENERATION} cannot be read", why=str(error)) from error
    return {key: said.get(key) for key in _IDS}


def check_tokenizer(folder: Path, config: ModelConfig) -> None:
    """Raise CheckpointError if the folder's tokenizer has ids that the model has no row for."""
    path = folder / TOKENIZER
    if not path.is_file():
        return
    try:
        ids = tokenizers.Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)
    except Exception as error:  # the library raises bare Exception for anything it cannot parse
        raise CheckpointError(
            "a tokenizer cannot be read",
            where=str(path),
            why=str(error),
            fix="get the file again from where the model came from",
        ) from error
    largest = max(ids.values(), default=0)
    if largest >= config.vocab_size:
        raise CheckpointError(
            "the tokenizer is larger than the model's vocabulary",
            where=str(path),
            why=f"it has an id {largest}, the model {config.vocab_size} rows",
            fix="get the tokenizer that belongs to this model",
        )


def to_json(value: Mapping[str, Any]) -> bytes:
    """JSON as people read it."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
