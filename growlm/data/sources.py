"""The sources that a preparation is given, by name, and what is to be known of each."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from growlm.data.card import CARD_JSON, CARD_MD
from growlm.data.cleaning.language import require
from growlm.data.manifest import MANIFEST
from growlm.data.pipeline.plan import SourceKind, SourcePlan, stamps
from growlm.data.pipeline.run import QUARANTINE
from growlm.data.pipeline.work import TOKENIZER
from growlm.data.reading.files import SUFFIXES, expand, others
from growlm.data.reading.tokens import beside
from growlm.errors import RecipeError

TOKEN_SUFFIXES = (".bin", ".ds")
"""Token files: Megatron's, and datatrove's."""
_BESIDE = (".idx", ".index", ".metadata", ".loss")
_RESERVED = (MANIFEST, TOKENIZER, CARD_JSON, CARD_MD, QUARANTINE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

Pairs = Iterable[tuple[str, str]]
"""(name of a source, value of an option)."""


@dataclass(frozen=True)
class SourceOptions:
    """A source of `prepare` that is not just running text."""

    paths: Sequence[str | Path]
    kind: SourceKind = "text"
    license: str = ""
    """Of documents that do not state their own."""
    language: str | None = None
    """ISO code; documents in another language are left out."""
    weight: float | None = None
    """Share of the tokenizer's sample, relative to the other sources'."""

    def plan(self) -> SourcePlan:
        """The files there are. Raises DataError: none, or a language that cannot be told here."""
        if self.language:
            require(self.language)
        files = expand(self.paths, self._suffixes)
        return SourcePlan(
            kind=self.kind,
            files=stamps(files),
            indexes=stamps(index for file in files for index in beside(file))
            if self.kind == "tokens"
            else (),
            license=self.license,
            language=self.language,
            weight=self.weight,
        )

    def others(self) -> dict[str, int]:
        """How many files of which kinds below its folders are left out."""
        return others(self.paths, (*self._suffixes, *(_BESIDE if self.kind == "tokens" else ())))

    @property
    def _suffixes(self) -> tuple[str, ...]:
        return TOKEN_SUFFIXES if self.kind == "tokens" else SUFFIXES


def sources_of(
    paths: Mapping[SourceKind, Pairs], licenses: Pairs = (), languages: Pairs = (), weights: Pairs = ()
) -> dict[str, SourceOptions]:
    """Sources from the options of a command line. Raises RecipeError: they contradict one another."""
    sources: dict[str, SourceOptions] = {}
    for kind, pairs in paths.items():
        for name, path in pairs:
            known = sources.get(name, SourceOptions((), kind))
            if known.kind != kind:
                raise RecipeError(
                    f"Source {name!r} is given as {known.kind} and as {kind}",
                    fix=f"name one of them otherwise: {name}-{kind}=PATH",
                )
            sources[name] = replace(known, paths=(*known.paths, path))
    for name, text in _of(sources, "--license", licenses):
        sources[name] = replace(sources[name], license=text)
    for name, code in _of(sources, "--language", languages):
        if sources[name].kind != "text":
            raise RecipeError(
                f"Source {name!r} is {sources[name].kind}",
                where="--language",
                why="only the language of running text is looked at",
            )
        sources[name] = replace(sources[name], language=code)
    for name, share in _of(sources, "--weight", weights):
        sources[name] = replace(sources[name], weight=_number(share, f"--weight {name}={share}"))
    return sources


def check_sources(sources: Mapping[str, SourceOptions], *, trains_tokenizer: bool) -> None:
    """Raise RecipeError: no source, a bad name or weight, weights of some only, tokens of who knows what."""
    if not sources:
        raise RecipeError("No source was given", fix="--source en=PATH --source zh=PATH")
    for name, source in sources.items():
        reserved = name.lower() in _RESERVED
        if reserved or not _NAME.fullmatch(name):
            why = "the name becomes a folder" + (", beside the file of that name" if reserved else "")
            raise RecipeError(f"A source cannot be named {name!r}", why=why, fix="--source en=PATH")
        if source.kind == "tokens" and trains_tokenizer:
            raise RecipeError(
                f"Source {name!r} is tokenised already, and its tokenizer was not given",
                where="--tokens",
                fix="--tokenizer tokenizer.json",
            )
    weights = {name: source.weight for name, source in sources.items() if source.weight is not None}
    if weights and not (all(0 <= w < math.inf for w in weights.values()) and sum(weights.values()) > 0):
        raise RecipeError(
            "The weights are no shares",
            where="--weight",
            why=f"they are {weights}",
            fix="--weight en=53.5 --weight zh=46.5",
        )
    missing = [name for name, source in sources.items() if source.kind == "text" and source.weight is None]
    if weights and missing:
        raise RecipeError(
            f"Source {missing[0]!r} has no weight, and others have one",
            where="--weight",
            why="the tokenizer would see none of its text",
            fix=f"--weight {missing[0]}=1, or 0 if that is meant",
        )


def _of(sources: Mapping[str, SourceOptions], option: str, pairs: Pairs) -> Iterable[tuple[str, str]]:
    """The pairs. Raises RecipeError: one names no source."""
    for name, value in pairs:
        if name not in sources:
            raise RecipeError(
                f"There is no source {name!r}",
                where=f"{option} {name}={value}",
                why=f"the sources are {', '.join(sources)}",
            )
        yield name, value


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise RecipeError(f"{text!r} is no number", where=where, fix="--weight en=53.5") from error
