"""Reasons to leave a document out: rules of Gopher and C4, right for English and for Chinese."""

from __future__ import annotations

from growlm.data.cleaning.units import units

MIN_UNITS = 50
"""Gopher (2112.11446, A.1.1): fewer words are no document."""


def quality(text: str) -> str | None:
    """Why a text is left out (one of `REASONS`), or None: it stays."""
    if len(units(text).hashes) < MIN_UNITS:
        return "short"
    return None
