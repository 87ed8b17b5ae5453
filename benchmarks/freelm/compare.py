"""What the runs of `run.sh` came to: language losses and held-out accuracy, before and after, as a table.

python benchmarks/freelm/compare.py FOLDER
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from growlm.data.dataset import TokenDataset
from growlm.train.record import RECORD_NAME, read_record

RUNS = ("before", "language", "unified", "alternating", "classification")
_EVAL_TOKENS = 32_768
"""`eval.tokens` of recipes/eflm.toml."""


def main() -> None:
    """Print the table as Markdown."""
    folder = Path(sys.argv[1])
    runs = {name: _last(folder / "runs" / name) for name in RUNS if (folder / "runs" / name).is_dir()}
    before = runs["before"]
    signals = sorted(before["accuracy"])
    texts = sorted(set(before["losses"]) - set(signals))
    print("|", " | ".join(["run", *(f"loss {t}" for t in texts), *(f"right {s}" for s in signals)]), "|")
    print("|", " | ".join(["---"] * (1 + len(texts) + len(signals))), "|")
    for name, last in runs.items():
        losses = ((last["losses"][t], before["losses"][t]) for t in texts)
        cells = [f"{loss:.3f} ({loss / first - 1:+.1%})" for loss, first in losses]
        cells += [f"{last['accuracy'][s]:.1%}" if s in last["accuracy"] else "" for s in signals]
        print("|", " | ".join([name, *cells]), "|")
    dataset = TokenDataset.open(folder / "data")
    for source in signals:
        count = _held_out(dataset, source)
        chance = f"chance is 50 % ± {0.98 / math.sqrt(count):.1%} (95 %)"
        print(f"\n{source}: {count} held-out propositions; {chance}")


def _last(run: Path) -> dict[str, Any]:
    return [record for record in read_record(run / RECORD_NAME) if record["kind"] == "valid"][-1]


def _held_out(dataset: TokenDataset, source: str) -> int:
    return int(dataset.validation(source, 128, _EVAL_TOKENS).marked.sum())


if __name__ == "__main__":
    main()
