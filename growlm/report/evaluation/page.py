"""`evaluation.html`: the results in a folder as one self-contained page."""

from __future__ import annotations

from pathlib import Path

from growlm.report import render
from growlm.report.evaluation.context import context_picture
from growlm.report.evaluation.gather import evaluation

PAGE_NAME, PICTURE_NAME = "evaluation.html", "context.svg"
_SCRIPTS = (*render.SHARED, "scatter.js", "evaluation.js")


def write_page(folder: Path) -> Path:
    """Write `evaluation.html` into a folder of results, and `context.svg` where there are context curves.

    Returns the page. Raises RecipeError for a folder without results, DataError for a damaged one, DiskError.
    """
    data = evaluation(folder)
    if data["contexts"]:
        render.write_page(context_picture(data["contexts"]), Path(folder) / PICTURE_NAME)
    text = render.page(data, title="Evaluation", scripts=_SCRIPTS)
    return render.write_page(text, Path(folder) / PAGE_NAME)
