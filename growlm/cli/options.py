"""Values that several verbs take."""

from __future__ import annotations

import re
from pathlib import Path

from growlm.errors import CheckpointError, RecipeError

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


def file_bytes(text: str, option: str = "--shard-size") -> int:
    """The bytes of `--shard-size 5GB`. Raises RecipeError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B)?", text.strip(), re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise RecipeError(f"{text!r} is not a number of bytes", where=option, fix=f"{option} 5GB")
    return max(1, int(float(match[1]) * _UNITS[(match[2] or "").upper()]))


def check_source(path: Path) -> None:
    """Raise CheckpointError for the source of a model that is not there, or is a GGUF file."""
    if not path.exists():
        raise CheckpointError("no such file or folder", where=str(path), fix="check the path")
    if path.suffix.lower() == ".gguf":
        raise CheckpointError(
            "this is a GGUF file",
            where=str(path),
            fix="convert it with transformers: docs/hugging-face.md, From a GGUF file",
        )


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """The positive numbers of `--widths 64,128`. Raises RecipeError."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise RecipeError(
            f"{text!r} is not a list of whole numbers", where=option, fix=f"{option} 64,128,256"
        )
    return numbers


def pairs(option: str, flags: list[str] | None) -> list[tuple[str, str]]:
    """NAME=VALUE flags, split. Raises RecipeError."""
    found = []
    for flag in flags or []:
        name, equals, value = flag.partition("=")
        if not (equals and name and value):
            what = "source" if option == "--source" else f"NAME=VALUE for {option}"
            raise RecipeError(f"{flag!r} is no {what}", where=option, fix=f"{option} en=...")
        found.append((name, value))
    return found


def shares(option: str, flags: list[str] | None) -> dict[str, float]:
    """NAME=NUMBER flags. Raises RecipeError."""
    found = {}
    for name, value in pairs(option, flags):
        try:
            found[name] = float(value)
        except ValueError as error:
            raise RecipeError(
                f"{value!r} is no number", where=f"{option} {name}={value}", fix=f"{option} {name}=0.5"
            ) from error
    return found


def whole_pairs(option: str, flags: list[str] | None) -> dict[str, int]:
    """NAME=WHOLE-NUMBER flags. Raises RecipeError."""
    found = {}
    for flag in flags or []:
        match = re.fullmatch(r"([^=]+)=(-?\d+)", flag)
        if match is None:
            raise RecipeError(
                f"{flag!r} is no NAME=NUMBER", where=f"{option} {flag}", fix=f"{option} length=12"
            )
        if match[1] in found:
            raise RecipeError(f"{match[1]} is set twice", where=f"{option} {flag}", fix="leave one out")
        found[match[1]] = int(match[2])
    return found


def fewer_tokens(asked: int, trained: int) -> str:
    """What to say of a vocabulary that came out smaller than it was asked to be."""
    return (
        f"warning: the tokenizer has {trained:,} tokens, not {asked:,}: the text has no more pieces that "
        "occur twice; add text, or ask for fewer"
    )
