"""Which language a text is in: by its script, and where many languages share one, by more than that."""

from __future__ import annotations

import numpy as np

UNKNOWN = "und"
"""ISO 639's code for undetermined."""


def language(text: str) -> str:
    """ISO 639 code of a text's main language, `und` where nothing says it."""
    codes = np.frombuffer(text[:8192].encode("utf-32-le", "surrogatepass"), np.uint32)
    han = int(((codes >= 0x4E00) & (codes < 0xA000)).sum())
    latin = int((((codes | 32) >= 97) & ((codes | 32) <= 122)).sum())
    if not han + latin:
        return UNKNOWN
    return "zh" if han * 2 > latin else "en"
