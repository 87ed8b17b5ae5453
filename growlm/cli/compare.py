"""`growlm compare`: two runs at equal tokens, equal FLOPs and equal time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def compare(
    a: Annotated[Path, typer.Argument(help="Run folder of the first run.")],
    b: Annotated[Path, typer.Argument(help="Run folder of the second run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a page with both runs' curves.")] = None,
) -> None:
    """Compare two runs: losses where both have been, what each used, the shapes they reached."""
    from growlm.report.compare import compare as compare_runs
    from growlm.report.compare import compare_page
    from growlm.report.render import write_page

    comparison = compare_runs(a, b)
    if html is not None:
        write_page(compare_page(comparison), html)
    if as_json:
        kept = {**comparison, "runs": [_brief(run) for run in comparison["runs"]]}
        typer.echo(json.dumps(kept, ensure_ascii=False, allow_nan=False))
    else:
        from growlm.report.tables import print_comparison

        print_comparison(comparison)


def _brief(run: dict[str, Any]) -> dict[str, Any]:
    """A run without its curves."""
    return {key: run[key] for key in ("name", "state", "currency", "totals", "stages", "growths")}
