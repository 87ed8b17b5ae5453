"""The names of the growth operators, and what is implied by them; light enough for the command line."""

from __future__ import annotations

from typing import Literal

Width = Literal[
    "masked",
    "zero",
    "clone",
    "lemon",
    "net2net",
    "fpi",
    "aki",
    "staged",
    "rms",
    "shrink_perturb",
    "ligo",
]
"""How width grows; docs/operators.md says what each does and preserves."""

Depth = Literal[
    "zero_block",
    "masked",
    "identity",
    "stack",
    "gradual",
    "interpose",
    "midas",
    "lidas",
    "solar",
    "distance",
    "random",
]
"""How layers are added; docs/operators.md says what each does and preserves."""


RESETS = ("shrink_perturb", "ligo")
"""Operators whose weights are no function of the old ones that moments could follow."""


NOISY = ("clone", "net2net", "aki")
"""Operators that add noise if the recipe does not say otherwise: nothing else parts their copies."""

DEFAULTS = {"operator": "clone", "depth": "zero_block"}
"""Settings of a growth by hand where nothing says otherwise: exact, and without masks."""
