"""Models one after the other: each is let go of before the next is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from growlm.inference.requests import Model
from growlm.inference.source import open_model


def ask_each(
    models: Sequence[Mapping[str, Any]],
    ask: Callable[[Model, Mapping[str, Any]], object],
    **settings: Any,
) -> None:
    """Call `ask` with every model and its facts; it must not keep the model.

    Args:
        models: the facts of each (`models_of`).
        settings: arguments of `open_model`, for all of them.

    Raises as `open_model` and `ask`.
    """
    for facts in models:
        _ask_one(facts, ask, settings)


def _ask_one(
    facts: Mapping[str, Any], ask: Callable[[Model, Mapping[str, Any]], object], settings: Mapping[str, Any]
) -> None:
    model = open_model(facts["source"], **settings)
    try:
        ask(model, facts)
    finally:
        close = getattr(model, "close", None)
        if close is not None:  # processes
            close()
