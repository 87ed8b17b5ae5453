"""Reasons to leave a document out: rules of Gopher and C4, right for English and for Chinese.

A unit is a word, of Chinese a character. Where a rule of words has no meaning for characters it has a number
of its own, chosen so that hardly any Chinese statute, article or manual is left out (docs/data-cleaning.md).
"""

from __future__ import annotations

import re
from functools import cache
from itertools import islice

import numpy as np

from growlm.data.cleaning.function_words import FUNCTION_CHARACTERS, FUNCTION_WORDS
from growlm.data.cleaning.language import letters
from growlm.data.cleaning.repetition import duplicate_share, repeated_lines, top_share
from growlm.data.cleaning.units import LONG_TEXT, Units, units

MIN_UNITS = 50
"""Gopher (2112.11446, A.1.1): a document has at least 50 words."""
WORD_LENGTH = (3, 10)
"""Gopher: range of the mean length of a text's words (here without those of one letter, as in don't)."""
MAX_SYMBOLS = 0.1
"""Gopher: hash signs and ellipses per unit."""
MAX_BULLETS = 0.9
"""Gopher: share of the lines that begin with a bullet."""
MAX_ELLIPSES = 0.3
"""Gopher: share of the lines that end with an ellipsis."""
MIN_ALPHABETIC = 0.8
"""Gopher: share of the units that have a letter."""
MIN_SENTENCES = 3
"""C4 (1910.10683, 2.2): a page has at least 3 sentences."""
MIN_FUNCTION_WORDS, MIN_FUNCTION_CHARACTERS = 0.1, 0.05
"""Share of the words, or of the Han characters, that carry grammar; after Gopher's two stop words."""
SAMPLE_UNITS = 2048
"""So many units of a long text are enough to tell that share."""
MAX_REPEATED_LINES = 0.2
"""Gopher: share of the characters that are in lines seen before."""
MAX_TOP_NGRAM = {2: 0.2, 3: 0.18, 4: 0.16}
"""Gopher: share of the characters that the commonest n-gram of words makes up; of Chinese 2 n characters."""
MAX_DUPLICATE_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1}
"""Gopher: share of the characters in n-grams of words seen before."""
MAX_DUPLICATE_CHARACTERS = {20: 0.3}
"""The same for Chinese: statutes repeat names of 10 characters, but not whole clauses."""
MAX_HTML = 0.2
"""Share of the characters that are tags and entities; articles that quote code have less."""
MAX_MOJIBAKE = 0.005
"""Share of the characters that come of decoding by the wrong table."""
MAX_BOILERPLATE = 0.2
"""Phrases of web pages' frames (C4's and their Chinese counterparts) per line."""
REASONS = (
    "too short",
    "html",
    "mojibake",
    "boilerplate",
    "lorem ipsum",
    "symbols",
    "bullets",
    "ellipses",
    "repeated lines",
    "not words",
    "word length",
    "no function words",
    "no sentences",
    "repeated n-grams",
)
"""What `quality` answers, in the order in which it asks."""

_TAG = re.compile(
    r"<(?:/?[A-Za-z][A-Za-z0-9]*(?:\s[^<>]{0,300})?/?|!--.{0,500}?--)>|&(?:[a-z]{2,8}|#\d{2,5});"
)
_CONTINUED = "[\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"  # the bytes 0x80 to 0xbf
_MOJIBAKE = re.compile(
    "\ufffd|锟斤拷|烫烫烫"
    "|[锛銆鐨]"  # the comma, the full stop and 的 in UTF-8, read as GBK
    f"|[ÂÃ]{_CONTINUED}|[à-ï]{_CONTINUED}{{2}}"  # UTF-8 read as Latin 1 or Windows 1252
    "|(?:[À-ÖØ-öø-ÿ][¡-ÿ]){2,}"  # GBK read as Latin 1
)
_SYMBOL = re.compile(r"#+|…+|\.{3,}")
_SENTENCE_END = re.compile(r"[。！？；．]|[.!?][\"'”’)\]_*]*(?=\s|$)")
_BULLETS = ("•", "●", "○", "■", "◦", "‣", "▪", "·", "- ", "* ", "+ ")
_ELLIPSES = ("…", "...")
_BOILERPLATE = (
    "javascript is disabled",
    "enable javascript",
    "terms of use",
    "terms of service",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "all rights reserved",
    "版权所有",
    "ICP备",
    "公网安备",
    "返回顶部",
    "上一篇",
    "下一篇",
    "网站地图",
    "联系我们",
    "扫码关注",
    "免责声明",
)


def quality(text: str) -> str | None:
    """Why a text is left out, the first of `REASONS` that holds, or None: it stays.

    Texts mostly in other scripts than Latin and Chinese meet only the rules that are right for any. Of a
    text of more than `LONG_TEXT` characters the first so many are judged.
    """
    text = text[:LONG_TEXT]
    found = units(text)
    if len(found.hashes) < MIN_UNITS:
        return "too short"
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
    return _residue(text, lines) or _layout(text, lines, len(found.hashes)) or _words(text, found)


def _residue(text: str, lines: list[str]) -> str | None:
    """What a page leaves behind that was not turned into text well."""
    if ("<" in text or "&" in text) and _matched(_TAG, text) > MAX_HTML * len(text):
        return "html"
    foreign = len(text) - len(text.encode("ascii", "ignore"))
    if foreign > MAX_MOJIBAKE * len(text) and _matched(_MOJIBAKE, text) > MAX_MOJIBAKE * len(text):
        return "mojibake"
    lower = text.lower()
    if sum(map(lower.count, _BOILERPLATE)) > MAX_BOILERPLATE * len(lines):
        return "boilerplate"
    return "lorem ipsum" if "lorem ipsum" in lower else None


def _matched(pattern: re.Pattern[str], text: str) -> int:
    """Characters of all matches."""
    return sum(match.end() - match.start() for match in pattern.finditer(text))


def _layout(text: str, lines: list[str], count: int) -> str | None:
    most = MAX_SYMBOLS * count
    if text.count("#") + text.count("…") + text.count("...") > most and len(_SYMBOL.findall(text)) > most:
        return "symbols"
    if sum(line.startswith(_BULLETS) for line in lines) > MAX_BULLETS * len(lines):
        return "bullets"
    if sum(line.endswith(_ELLIPSES) for line in lines) > MAX_ELLIPSES * len(lines):
        return "ellipses"
    return "repeated lines" if repeated_lines(lines) > MAX_REPEATED_LINES else None


def _words(text: str, found: Units) -> str | None:
    if found.alphabetic.mean() < MIN_ALPHABETIC:
        return "not words"
    scripts = letters(text)
    if 2 * (scripts["latin"] + scripts["han"]) < sum(scripts.values()):
        return None
    chinese = found.alone.mean() > 0.5
    lengths = (found.ends - found.starts)[~found.alone]
    words = lengths[lengths > 1]
    if not chinese and not WORD_LENGTH[0] <= words.sum() / max(1, len(words)) <= WORD_LENGTH[1]:
        return "word length"
    if not _has_grammar(found):
        return "no function words"
    if sum(1 for _ in islice(_SENTENCE_END.finditer(text), MIN_SENTENCES)) < MIN_SENTENCES:
        return "no sentences"
    return "repeated n-grams" if _repeats(found, chinese) else None


def _has_grammar(found: Units) -> bool:
    """Whether the words, or the characters, are such as sentences need."""
    words, characters = _thinned(found.hashes[~found.alone]), _thinned(found.hashes[found.alone])
    in_words = _among(words, " ".join(FUNCTION_WORDS.values()))
    in_characters = _among(characters, FUNCTION_CHARACTERS)
    return (
        in_words >= max(1, MIN_FUNCTION_WORDS * len(words))
        or in_characters >= max(1, MIN_FUNCTION_CHARACTERS * len(characters))
    )  # fmt: skip


def _repeats(found: Units, chinese: bool) -> bool:
    lengths = found.ends - found.starts
    if any(
        top_share(found.hashes, lengths, 2 * n if chinese else n) > limit
        for n, limit in MAX_TOP_NGRAM.items()
    ):
        return True
    limits = MAX_DUPLICATE_CHARACTERS if chinese else MAX_DUPLICATE_NGRAMS
    shortest = duplicate_share(found.hashes, lengths, min(limits))
    if shortest <= min(limits.values()):  # longer repeats are made of shorter ones
        return False
    return any(duplicate_share(found.hashes, lengths, n) > limit for n, limit in limits.items())


def _thinned(hashes: np.ndarray) -> np.ndarray:
    """At least `SAMPLE_UNITS` of them, evenly spread, if there are more."""
    return hashes[:: max(1, len(hashes) // SAMPLE_UNITS)]


def _among(hashes: np.ndarray, words: str) -> int:
    """How many of the units are one of these words."""
    table = _hashes(words)
    return int((table[np.searchsorted(table[:-1], hashes)] == hashes).sum())


@cache
def _hashes(words: str) -> np.ndarray:
    return np.unique(units(words).hashes)
