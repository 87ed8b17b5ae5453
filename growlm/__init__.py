"""GrowLM: pre-train language models cheaply by growing them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from growlm.api import grow

__version__ = "0.6.0"
__all__ = ["__version__", "grow"]


def __getattr__(name: str) -> Any:
    """`growlm.grow`, imported when it is first asked for: it needs torch, most of the package does not."""
    if name != "grow":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from growlm.api import grow

    return grow
