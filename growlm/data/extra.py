"""Packages that are not always there: imported where they are needed, or the line that installs them."""

from __future__ import annotations

import importlib
from types import ModuleType

from growlm.errors import DataError


def extra(module: str, where: object = "", name: str = "data") -> ModuleType:
    """Import a module of the extra `name`. Raises DataError with the line that installs it.

    `where` is what needs it, for the message: a file or a flag.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"Reading this file needs the package {module.partition('.')[0]}"
            if name == "data"
            else f"This needs the package {module.partition('.')[0]}",
            where=str(where),
            fix=f'pip install "growlm[{name}]"',
        ) from error
