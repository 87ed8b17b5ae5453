"""datatrove's token files: x.ds holds token ids, x.ds.index where each document ends.

The layout is that of datatrove's `pipeline/tokens/tokenizer.py`: ids of two or four bytes, little-endian;
in x.ds.index the number of tokens up to each document's end (u64); in x.ds.metadata, if it is there, the
bytes of an id after the last `|` of its first line. Masks in x.ds.loss are not read: all tokens are learnt.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from growlm.errors import DataError


class DatatroveFile:
    """See `tokens.TokenFile`."""

    def __init__(self, path: Path) -> None:
        """`path` is the .ds. Raises DataError: files that are missing or do not fit together."""
        self.path = path
        index = path.with_name(path.name + ".index")
        try:
            self.documents = index.stat().st_size // 8
            self._ends = np.memmap(index, "<u8", "r") if self.documents else np.zeros(0, np.uint64)
            tokens, size = int(self._ends[-1]) if self.documents else 0, path.stat().st_size
            width = size // tokens if tokens else _width(path)
            if width not in (2, 4) or width * tokens != size:
                raise ValueError(f"it says {tokens} tokens; {path.name} has {size} bytes")
            if (said := _width(path)) not in (0, width):
                raise ValueError(f"ids have {width} bytes; {path.name}.metadata says {said}")
            self.ids: np.ndarray = np.memmap(path, f"<u{width}", "r") if size else np.zeros(0, f"<u{width}")
        except (OSError, ValueError) as error:
            raise DataError(
                "A token file of datatrove cannot be read",
                where=str(path),
                why=f"{index.name}: {error}",
                fix="give x.ds with its x.ds.index beside it, or write both again",
            ) from error

    def bounds(self, first: int, end: int) -> np.ndarray:
        """See `tokens.TokenFile`."""
        starts = self._ends[max(0, first - 1) : end].astype(np.int64)
        return starts if first else np.concatenate([[0], starts])


def _width(path: Path) -> int:
    """Bytes of an id by the metadata beside a file, 0 if there are none. Raises OSError, ValueError."""
    beside = path.with_name(path.name + ".metadata")
    if not beside.exists():
        return 0
    return int(beside.read_text("utf-8").splitlines()[0].rpartition("|")[2])
