"""Phase 4: which documents of a chunk stay; then, over all chunks, where validation begins."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from growlm.data.manifest import Step
from growlm.data.pipeline.chunks import CLAIMS, EXACT, NEAR, Chunk
from growlm.data.pipeline.copies import copies_among
from growlm.data.pipeline.plan import SourcePlan
from growlm.data.pipeline.work import ChunkPlace, Work
from growlm.errors import DataError

SAMPLE_BINS = 1 << 12
"""The sample of the tokenizer takes documents by ranges of their hash's lower half, of so many."""
SAMPLE_PIECE = 1 << 17
"""Bytes of one document that the sample takes at most."""


class Settled(NamedTuple):
    """What is left of one source."""

    documents: int
    smallest: int
    largest: int
    """Smallest and largest hash of a group."""
    licenses: dict[str, int]
    bins: np.ndarray
    """(SAMPLE_BINS,) bytes that the tokenizer's sample could take, by the hash's lower half."""


def settle(work: Work, number: int) -> None:
    """Decide for chunk `number`: `kept.npy`, (documents,) bool, and the counts."""
    place = work.chunks[number]
    docs = Chunk(work, place).docs()
    sizes = docs["bytes"].astype(np.int64)
    kept = np.ones(len(docs), bool)
    steps = []
    for table, name in _tables(work, place):
        copies = kept & copies_among(work, table, place.first, place.end)
        steps.append(_step(name, sizes, kept, kept & ~copies))
        kept &= ~copies
    licenses = Counter(docs["license"][kept].tolist())
    groups = docs["group"][kept]
    bins = np.bincount(
        (docs["low"][kept] // np.uint64((1 << 64) // SAMPLE_BINS)).astype(np.int64),
        np.minimum(sizes[kept], SAMPLE_PIECE),
        SAMPLE_BINS,
    )
    with work.commit("settle", number) as folder:
        np.save(folder / "kept.npy", kept)
        np.save(folder / "bins.npy", bins.astype(np.int64))
        result = {
            "steps": [step.model_dump() for step in steps],
            "licenses": {str(key): count for key, count in licenses.items()},
            "groups": [int(groups.min()), int(groups.max())] if len(groups) else None,
        }
        (folder / "result.json").write_text(json.dumps(result))


def settled(work: Work, results: Mapping[int, Mapping[str, Any]]) -> Settled:
    """What is left of a source; `results` are those of its chunks, by number."""
    licenses: Counter[str] = Counter()
    groups: list[int] = []
    bins = np.zeros(SAMPLE_BINS, np.int64)
    for number, result in results.items():
        names = work.result("scan", work.chunks[number].task)["licenses"]
        licenses.update({names[int(key)]: count for key, count in result["licenses"].items()})
        groups += result["groups"] or []
        bins += np.load(work.path("settle", number) / "bins.npy")
    return Settled(
        documents=licenses.total(),
        smallest=min(groups, default=0),
        largest=max(groups, default=0),
        licenses={name: count for name, count in sorted(licenses.items()) if name},
        bins=bins,
    )


def split_limit(name: str, source: SourcePlan, found: Settled, steps: Sequence[Step], share: float) -> int:
    """Groups whose hash is below this are validation: a share of all possible hashes.

    A source whose share gives it no validation group takes the one with the smallest hash, and one that
    would train on nothing keeps the one with the largest.

    Raises:
        DataError: nothing is left of the source, or not two different groups.
    """
    if found.documents == 0:
        last = next((step for step in steps if step.documents_in and not step.documents_out), steps[0])
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in last.reasons.items())
        raise DataError(
            f"Source {name!r} is empty",
            where=source.where,
            why=f"the step `{last.name}` left out the last {last.documents_in:,} documents"
            + (f": {reasons}" if reasons else "")
            if last.documents_in
            else "there is no document in it",
            fix="check the path and the options of that step, or leave the source out",
        )
    if found.smallest == found.largest:
        left_out = sum(step.documents_in - step.documents_out for step in steps)
        raise DataError(
            f"Source {name!r} has too few different documents: {found.documents}",
            where=source.where,
            why="training and validation need one each, about different texts; "
            f"{left_out:,} were left out before: "
            + ", ".join(f"{step.name} {step.documents_in - step.documents_out:,}" for step in steps),
            fix="add text to the source, or leave it out",
        )
    return min(max(int(share * 2.0**64), found.smallest + 1), found.largest)


def _tables(work: Work, place: ChunkPlace) -> list[tuple[str, str]]:
    tables = [(EXACT, "exact duplicates")]
    if work.plan.near_duplicates and work.plan.sources[place.source].kind == "text":
        tables.append((NEAR, "near duplicates"))
    if work.plan.sources[place.source].kind == "signals":
        tables.append((CLAIMS, "contradictions"))
    return tables


def _step(name: str, sizes: np.ndarray, before: np.ndarray, after: np.ndarray) -> Step:
    return Step(
        name=name,
        documents_in=int(before.sum()),
        documents_out=int(after.sum()),
        bytes_in=int(sizes[before].sum()),
        bytes_out=int(sizes[after].sum()),
    )
