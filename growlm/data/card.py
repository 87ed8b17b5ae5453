"""The data card: what a prepared folder is made of, as facts (JSON) and as a page to read (Markdown)."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from growlm.data.cleaning.language import language
from growlm.data.dataset import TokenDataset
from growlm.data.manifest import MARK, Kind, Manifest, Source, Split, Step, TokenizerEntry
from growlm.data.tokenizer import Tokenizer

CARD_JSON, CARD_MD = "card.json", "card.md"
SAMPLES, SAMPLE_CHARS, SHOWN = 100, 300, 3
"""Documents of each source that are looked at, how much of each, and how many of them are shown."""

_UNSTATED = "not stated"
_TOKENS_PER_CHAR = 3  # what a character of a language that the tokenizer does not know may take
_SEARCH_TOKENS = 1 << 16
_DIRECTION = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")
_KINDS = {"text": "running text", "signals": "teacher signals", "instructions": "instructions"}


class _Fact(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Amount(_Fact):
    """How much text."""

    documents: int
    bytes: int
    tokens: int


class SourceFacts(_Fact):
    """One source."""

    kind: Kind
    files: int
    licenses: dict[str, int]
    steps: tuple[Step, ...]
    splits: dict[str, Amount]
    bytes_per_token: float | None
    languages: dict[str, float]
    """Shares of the sampled documents by the ISO 639 code of their language."""
    samples: tuple[str, ...]


class Card(_Fact):
    """What `card.json` holds."""

    fingerprint: str
    tokenizer: TokenizerEntry
    validation_share: float
    train: Amount
    languages: dict[str, int]
    """Training tokens by language, as the shares of the samples say."""
    sources: dict[str, SourceFacts]
    contamination: dict[str, int]
    """Documents that overlap an evaluation set, by set."""
    mixture: dict[str, dict[str, float]] = {}
    """Of a run: the weights of the sources, by stage."""


def facts(manifest: Manifest, samples: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What `card.json` holds, in plain JSON types; `samples` are texts by source (see `samples_of`)."""
    sources = {name: _source(source, samples.get(name, ())) for name, source in manifest.sources.items()}
    languages: Counter[str] = Counter()
    for source in sources.values():
        for code, share in source.languages.items():
            languages[code] += round(share * source.splits["train"].tokens)
    card = Card(
        fingerprint=manifest.fingerprint,
        tokenizer=manifest.tokenizer,
        validation_share=manifest.validation_share,
        train=_sum(source.splits["train"] for source in manifest.sources.values()),
        languages=dict(languages.most_common()),
        sources=sources,
        contamination=_reasons_of(manifest.sources.values(), "contamination"),
    )
    return card.model_dump(mode="json")


def read_card(path: Path) -> dict[str, Any] | None:
    """The facts in a file; None where there is none that can be read."""
    try:
        return Card.model_validate_json(path.read_bytes()).model_dump(mode="json")
    except (OSError, ValidationError):
        return None


def samples_of(
    dataset: TokenDataset, tokenizer: Tokenizer, n: int = SAMPLES, length: int = SAMPLE_CHARS
) -> dict[str, list[str]]:
    """By source up to `n` training documents, evenly spaced: the first `length` characters of texts, and of
    examples the beginning and the end.

    Raises DataError if a block that is read is damaged.
    """
    return {name: list(_texts(dataset, tokenizer, name, n, length)) for name in dataset.sources}


def markdown(facts: Mapping[str, Any], level: int = 1) -> str:
    """The card of some facts; `level` is that of its heading. No text of the data ends its place on it."""
    tokenizer, head = facts["tokenizer"], "#" * level
    sources = facts["sources"]
    parts = [
        f"{head} Data",
        f"{facts['train']['documents']:,} training documents, {_mega(facts['train']['bytes'])} MB, "
        f"{facts['train']['tokens']:,} tokens of a tokenizer with {tokenizer['vocab_size']:,} entries "
        f"(hash `{tokenizer['hash']}`). {100 * facts['validation_share']:g} % of the documents are held out. "
        f"Fingerprint `{facts['fingerprint']}`.",
        _table(
            ("source", "kind", "split", "documents", "MB", "tokens", "bytes per token"),
            [row for name, source in sources.items() for row in _split_rows(name, source)],
        ),
        *_languages(facts, head),
        *_mixture(facts["mixture"], sources, head),
        f"{head}# Licences",
        _table(
            ("source", "licence", "documents"),
            [
                (name, words, f"{count:,}")
                for name, source in sources.items()
                for words, count in source["licenses"].items()
            ],
        ),
        *_steps(sources, head),
        *_contamination(facts["contamination"], head),
        *_samples(sources, head),
    ]
    return "\n\n".join(parts) + "\n"


def _source(source: Source, samples: Sequence[str]) -> SourceFacts:
    whole, found = _sum(source.splits.values()), Counter(map(language, samples))
    unstated = whole.documents - sum(source.licenses.values())
    return SourceFacts(
        kind=source.kind,
        files=source.files,
        licenses={**source.licenses, **({_UNSTATED: unstated} if unstated > 0 else {})},
        steps=source.steps,
        splits={name: _sum([split]) for name, split in source.splits.items()},
        bytes_per_token=whole.bytes / whole.tokens if whole.tokens else None,
        languages={code: count / len(samples) for code, count in sorted(found.items())},
        samples=tuple(samples[:: -(-len(samples) // SHOWN)]) if samples else (),
    )


def _sum(splits: Iterable[Split]) -> Amount:
    total = np.array([(s.documents, s.bytes, s.tokens) for s in splits], np.int64).sum(axis=0).tolist()
    return Amount(documents=total[0], bytes=total[1], tokens=total[2])


def _reasons_of(sources: Iterable[Source], name: str) -> dict[str, int]:
    """The reasons of one step, added up over the sources."""
    total: Counter[str] = Counter()
    for source in sources:
        for step in source.steps:
            if step.name == name:
                total.update(step.reasons)
    return dict(total)


def _texts(dataset: TokenDataset, tokenizer: Tokenizer, source: str, n: int, length: int) -> Iterator[str]:
    is_text = dataset.manifest.sources[source].kind == "text"
    wanted = _TOKENS_PER_CHAR * length if is_text else _SEARCH_TOKENS
    for start in _starts(dataset, tokenizer.eos_id, source, n):
        ids = _plain(dataset, source, start, wanted)
        ends = np.flatnonzero(ids == tokenizer.eos_id)
        text = tokenizer.decode(ids[: ends[0] if len(ends) else None].tolist()).strip("\ufffd")
        if len(text) > length or not len(ends):
            text = f"{text[:length]}…" if is_text else f"{text[: length // 2]} … {text[-length // 2 :]}"
        if text.strip():
            yield text


def _starts(dataset: TokenDataset, eos_id: int, source: str, n: int) -> list[int]:
    """Where up to `n` documents begin, evenly spaced; of a very long one, somewhere in it."""
    total = dataset.tokens(source, "train")
    starts = {0} if total else set()
    for place in sorted({i * total // n for i in range(1, n)} - {0}):
        ends = np.flatnonzero(_plain(dataset, source, place - 1, _SEARCH_TOKENS) == eos_id)
        starts.add(place + int(ends[0]) if len(ends) else place)
    return sorted(starts - {total})


def _plain(dataset: TokenDataset, source: str, start: int, count: int) -> np.ndarray:
    """Up to `count` training tokens without the marks of what is learnt."""
    count = min(count, dataset.tokens(source, "train") - start)
    return dataset.read(source, "train", start, count).astype(np.int64) & (MARK - 1)


def _split_rows(name: str, source: Mapping[str, Any]) -> list[Sequence[str]]:
    kind = _KINDS[source["kind"]]
    return [
        [
            name,
            kind,
            split,
            f"{part['documents']:,}",
            _mega(part["bytes"]),
            f"{part['tokens']:,}",
            _ratio(part),
        ]
        for split, part in source["splits"].items()
    ]


def _ratio(part: Mapping[str, int]) -> str:
    return f"{part['bytes'] / part['tokens']:.2f}" if part["tokens"] else "-"


def _languages(facts: Mapping[str, Any], head: str) -> list[str]:
    if not facts["languages"]:
        return []
    rows = [
        (code, f"{tokens:,}", f"{100 * tokens / facts['train']['tokens']:.1f} %")
        for code, tokens in facts["languages"].items()
    ]
    return [
        f"{head}# Languages",
        f"Estimated from up to {SAMPLES} documents of each source.",
        _table(("language", "training tokens, about", "share"), rows),
    ]


def _mixture(mixture: Mapping[str, Mapping[str, float]], sources: Iterable[str], head: str) -> list[str]:
    if not mixture:
        return []
    rows = [
        (stage, *(f"{100 * weights.get(name, 0) / sum(weights.values()):.1f} %" for name in sources))
        for stage, weights in mixture.items()
    ]
    return [f"{head}# Mixture", _table(("stage", *sources), rows)]


def _steps(sources: Mapping[str, Any], head: str) -> list[str]:
    columns = ("source", "step", "documents in", "out", "MB in", "out", "left out or changed, by reason")
    rows = [[name, *_step_row(step)] for name, source in sources.items() for step in source["steps"]]
    return [f"{head}# Steps", _table(columns, rows)] if rows else []


def _step_row(step: Mapping[str, Any]) -> list[str]:
    documents = [f"{step[key]:,}" for key in ("documents_in", "documents_out")]
    sizes = [_mega(step[key]) for key in ("bytes_in", "bytes_out")]
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in step["reasons"].items() if count)
    return [step["name"], *documents, *sizes, reasons]


def _contamination(found: Mapping[str, int], head: str) -> list[str]:
    if not found:
        return []
    rows = [(name, f"{count:,}") for name, count in found.items()]
    return [
        f"{head}# Overlap with evaluation sets",
        _table(("evaluation set", "documents that overlap it, left out"), rows),
    ]


def _samples(sources: Mapping[str, Any], head: str) -> list[str]:
    blocks = [
        f"<details><summary>{_escaped(name)}</summary>\n\n"
        + "\n\n".join(_fenced(text) for text in source["samples"])
        + "\n\n</details>"
        for name, source in sources.items()
        if source["samples"]
    ]
    return [f"{head}# Sample documents", *blocks] if blocks else []


def _mega(size: int) -> str:
    """Bytes in MB."""
    return f"{size / 1e6:,.2f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_escaped(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escaped(text: str) -> str:
    """One line of text that Markdown and HTML show as it is."""
    line = " ".join(_visible(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|~>#])", r"\\\1", line)


def _fenced(text: str) -> str:
    """A block of text as it is: its fence is longer than any that the text has."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{_visible(text)}\n{fence}"


def _visible(text: str) -> str:
    """Without control and direction characters, which would change how what follows is shown."""
    return "".join(c if _is_shown(c) else "\ufffd" for c in text.replace("\r\n", "\n"))


def _is_shown(c: str) -> bool:
    return c in "\n\t" or (unicodedata.category(c) not in ("Cc", "Cs") and c not in _DIRECTION)
