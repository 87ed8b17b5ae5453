"""Models to fuse with another one (growth/fusion.py), whatever they lie in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growlm.convert.folder import FolderWeights
from growlm.growth.fusion import FusedWeights
from growlm.growth.weights import Weights


@dataclass(frozen=True)
class Parent:
    """A model to fuse: its weights, the files they are in, and its tokenizer's hash, empty if it has none."""

    weights: Weights
    files: Sequence[Path]
    tokenizer_hash: str


class FusedFolder(FusedWeights):
    """A Hugging Face folder fused with other models; all that is no weight is the folder's own."""

    def __init__(self, folder: FolderWeights, others: Sequence[Parent]) -> None:
        super().__init__([folder, *(other.weights for other in others)])
        self.folder, self.dialect, self.config_json = folder.folder, folder.dialect, folder.config_json
        self.files = [*folder.files, *(file for other in others for file in other.files)]


def marks_of(files: Iterable[Path]) -> list[Any]:
    """By what files are known again without reading them: name, size and time of each."""
    return [[path.name, (stat := path.stat()).st_size, stat.st_mtime_ns] for path in files]
