"""The cleaning of one document, step by step, and how many documents each step left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from growlm.data.cleaning.contamination import Contamination
from growlm.data.cleaning.language import language
from growlm.data.cleaning.normalise import normalise
from growlm.data.cleaning.pii import redact
from growlm.data.cleaning.quality import quality
from growlm.data.manifest import Step
from growlm.data.pipeline.plan import Plan, SourcePlan
from growlm.data.segments import Document

CONTAMINATION = "contamination"
"""File in the work folder that holds the n-grams of the evaluation sets."""

Clean = Callable[[Document], tuple[Document | None, Iterable[str]]]
"""The document as it goes on, None if it is left out; and what was found in it."""


@dataclass
class Tally:
    """Counts of one step; see `manifest.Step`."""

    name: str
    documents_in: int = 0
    documents_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def count(self, size: int, size_out: int | None, reasons: Iterable[str] = ()) -> None:
        """A document of `size` bytes went in, and came out with `size_out` bytes or (None) not."""
        self.documents_in += 1
        self.bytes_in += size
        if size_out is not None:
            self.documents_out += 1
            self.bytes_out += size_out
        self.reasons.update(reasons)

    def step(self) -> Step:
        """The counts, as the manifest has them."""
        return Step(**{**self.__dict__, "reasons": dict(sorted(self.reasons.items()))})


class Cleaner:
    """The steps that look at one document at a time, in their order; `tallies` counts."""

    def __init__(self, source: SourcePlan, plan: Plan, folder: Path) -> None:
        steps = _steps(source, plan, folder)
        self.tallies = [Tally(name) for name, _ in steps]
        if plan.decontaminate:  # a set that nothing quotes is told of too
            self.tallies[-1].reasons.update(dict.fromkeys(_contamination(folder / CONTAMINATION).names, 0))
        self._steps = [(tally, clean) for tally, (_, clean) in zip(self.tallies, steps, strict=True)]

    def clean(self, document: Document) -> Document | None:
        """The document after all steps, None if one of them leaves it out."""
        size = size_of(document)
        for tally, clean in self._steps:
            before = document
            cleaned, reasons = clean(before)
            if cleaned is None:
                tally.count(size, None, reasons)
                return None
            size_out = size if cleaned is before else size_of(cleaned)
            tally.count(size, size_out, reasons)
            document, size = cleaned, size_out
        return document


def size_of(document: Document) -> int:
    """Bytes of a document's text as UTF-8."""
    return sum(len(segment.text.encode()) for segment in document.segments)


def added(steps: Sequence[Step]) -> Step:
    """The sum of one step's counts over parts of a source."""
    total = Tally(steps[0].name)
    for step in steps:
        total.documents_in += step.documents_in
        total.documents_out += step.documents_out
        total.bytes_in += step.bytes_in
        total.bytes_out += step.bytes_out
        total.reasons.update(step.reasons)
    return total.step()


def _steps(source: SourcePlan, plan: Plan, folder: Path) -> list[tuple[str, Clean]]:
    """Names and functions; examples are neither judged by their language nor by their quality.

    Text that is tokenised already cannot be changed, nor is it judged; it is only looked for quotations.
    """
    contamination = _without(_contamination(folder / CONTAMINATION)) if plan.decontaminate else None
    if source.kind == "tokens":
        return [("contamination", contamination)] if contamination else []
    steps: list[tuple[str, Clean]] = [("normalise", _normalised)]
    if source.kind == "text" and source.language is not None:
        steps.append(("language", _only(source.language)))
    if source.kind == "text" and plan.quality:
        steps.append(("quality", _good))
    if plan.pii:
        steps.append(("pii", _redacted))
    if contamination:
        steps.append(("contamination", contamination))
    return steps


def _changed(document: Document, change: Callable[[str], str]) -> Document:
    """The document with the text of its segments changed; the same object where nothing changes."""
    segments = tuple(s if s.special else s._replace(text=change(s.text)) for s in document.segments)
    if segments == document.segments:
        return document
    group = segments[0].text if len(segments) == 1 else change(document.group)
    return document._replace(segments=segments, group=group.strip())


def _normalised(document: Document) -> tuple[Document | None, Iterable[str]]:
    cleaned = _changed(document, normalise)
    if all(segment.special or not segment.text.strip() for segment in cleaned.segments):
        return None, ["empty"]
    return cleaned, ()


def _only(code: str) -> Clean:
    def clean(document: Document) -> tuple[Document | None, Iterable[str]]:
        found = language(document.text)
        return (document, ()) if found == code else (None, [found])

    return clean


def _good(document: Document) -> tuple[Document | None, Iterable[str]]:
    reason = quality(document.text)
    return (document, ()) if reason is None else (None, [reason])


def _redacted(document: Document) -> tuple[Document | None, Iterable[str]]:
    found: Counter[str] = Counter()

    def change(text: str) -> str:
        redacted, kinds = redact(text)
        found.update(kinds.keys())
        return redacted

    return _changed(document, change), list(found)


def _without(sets: Contamination) -> Clean:
    def clean(document: Document) -> tuple[Document | None, Iterable[str]]:
        found = sets.sets_in(document.text)
        return (None, found) if found else (document, ())

    return clean


@lru_cache(maxsize=1)
def _contamination(path: Path) -> Contamination:
    return Contamination.load(path)
