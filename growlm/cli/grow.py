"""`growlm grow`: grow a model into a larger one, certified, without training."""

from __future__ import annotations

import json
import os
import signal
import textwrap
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from growlm.cli.options import check_source, file_bytes
from growlm.errors import GrowthError, RecipeError
from growlm.recipe.operators import DEFAULTS, Depth, Width

Json = dict[str, Any]


def _choices(what: str, kinds: Any, name: str) -> str:
    return f"{what}: {', '.join(get_args(kinds))} (docs/operators.md); {DEFAULTS[name]} by default."


def _stop(number: int, _frame: object) -> None:
    """End at once, as a kill does: what is written stays for the next start."""
    os.write(2, b"\nstopped; the same command continues\n")
    os._exit(128 + number)


def grow(
    source: Annotated[
        Path,
        typer.Argument(metavar="SRC", help="Run, checkpoint or Hugging Face folder; a recipe for --dry-run."),
    ],
    to: Annotated[
        str,
        typer.Option(
            metavar="SIZES|RECIPE",
            help="New sizes as width=2x,depth=1.5x or d_model=1152,n_layers=45; or recipe.toml[:STAGE].",
        ),
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="New folder for the grown model, of the same kind.")
    ] = None,
    fuse: Annotated[
        list[Path] | None,
        typer.Option(
            help="Another model to lay beside SRC first, as often as needed; --to may then be left out."
        ),
    ] = None,
    operator: Annotated[str | None, typer.Option(help=_choices("How width grows", Width, "operator"))] = None,
    depth: Annotated[str | None, typer.Option(help=_choices("How layers are added", Depth, "depth"))] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting of [stages.growth]: --set noise=0.05.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Prepared data for the certificate; random tokens without it.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")] = 1,
    certificate: Annotated[
        str, typer.Option(help="auto, full, streaming (block by block) or sampled (probes).")
    ] = "auto",
    shard_size: Annotated[str, typer.Option(help="Largest size of a file.")] = "5GB",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be written, and what it takes; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Grow a model to a larger shape and certify that it still computes the same.

    The same command continues after a kill. Writing takes at most 500 MB of memory and twice the largest
    tensor, the certificate at most a third of what is free.
    """
    settings = _settings(set_ or [], operator=operator, depth=depth)
    for path in (source, *(fuse or [])):
        check_source(path)
    if dry_run:
        with _fixes_as_flags():
            plans = _dry_runs(source, to, settings, out, seed, fuse or [])
        typer.echo(json.dumps({"growths": plans}) if as_json else "\n\n".join(map(_plan_text, plans)))
        return
    if not (to or fuse) or out is None:
        raise RecipeError(
            "a growth needs what to grow to and where to write it",
            fix="e.g. growlm grow SRC --to width=2x --operator clone --out DST",
        )
    if certificate not in ("auto", "full", "streaming", "sampled"):
        raise RecipeError(
            f"there is no certificate {certificate!r}",
            where="--certificate",
            fix="write auto, full, streaming or sampled",
        )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    from growlm.data.progress import Progress
    from growlm.train.offline import grow_offline

    with _fixes_as_flags():
        entry = grow_offline(
            source,
            to,
            settings,
            out,
            fuse=fuse or [],
            data=data,
            seed=seed,
            certificate=certificate,
            shard_bytes=file_bytes(shard_size),
            progress=Progress(quiet=as_json),
        )
    typer.echo(
        json.dumps(entry | {"path": str(out)})
        if as_json
        else _done_text(entry, out, f"held-out text of {data}" if data else "random tokens")
    )


@contextmanager
def _fixes_as_flags() -> Iterator[None]:
    """Growths are refused in the words of a recipe; add how its settings are named here."""
    try:
        yield
    except GrowthError as error:
        from growlm.recipe.schema import GrowthTable

        names = [name for name in GrowthTable.model_fields if f"{name} = " in error.fix]
        if names:
            error.fix += f" (on the command line: {', '.join(f'--set {name}=...' for name in names)})"
        raise


def _settings(texts: list[str], **flags: str | None) -> Json:
    """Settings of a growth from `name=value` texts and flags. Raises RecipeError for another text."""
    settings: Json = {name: value for name, value in flags.items() if value is not None}
    for text in texts:
        name, equals, raw = (part.strip() for part in text.partition("="))
        if not (name and equals and raw):
            raise RecipeError(
                "a setting is a name and a value", where=f"--set {text}", fix="--set noise=0.05"
            )
        try:
            settings[name] = tomllib.loads(f"value = {raw}")["value"]
        except (tomllib.TOMLDecodeError, RecursionError):
            settings[name] = raw
    try:
        from growlm.recipe.sizes import growth_table

        growth_table(settings)
    except RecipeError as error:
        error.where = f"--{error.where}" if flags.get(error.where) else f"--set {error.where}"
        raise
    return settings


def _dry_runs(
    source: Path, to: str, settings: Json, out: Path | None, seed: int, fuse: list[Path]
) -> list[Json]:
    """The plan of one growth, or of every growth of a recipe."""
    from growlm.convert.estimate import dry_run, measured_rate
    from growlm.train.offline import plans_of

    folder = next(p for p in ((out or Path()).absolute(), *(out or Path()).absolute().parents) if p.is_dir())
    return [
        dry_run(growth, dtype=dtype, with_state=state, rate=measured_rate(growth, dtype, folder))
        for growth, dtype, state in plans_of(source, to, settings, seed, fuse)
    ]


def _done_text(entry: Json, out: Path, text: str) -> str:
    c = entry["certificate"]
    exact = "exact" if c["exact"] else "not exact, by design of the operator"
    how = f"{c['kind']}, {c['precision']}"
    return f"grown: {out}\n{_fusion_text(c, text)}{_moved_text(c, text)}   ({how})\n{exact}{_locked_text(c)}"


def _moved_text(certificate: Json, text: str) -> str:
    """What was measured. Probes measure nothing where the operator does more than copy."""
    c = certificate
    if "max_dlogit" in c:
        grown = "growth of the fused model: " if "fusion" in c else ""
        return f"{grown}max |dlogit| {c['max_dlogit']:.3g}   dloss {c['dloss']:+.3g} on {text}"
    if c["max_error"] is None:
        return "probes found numbers everywhere; this operator is compared with nothing"
    return f"largest error of a probe {c['max_error']:.3g}, in {c['worst']}"


def _locked_text(certificate: Json) -> str:
    """A line on the copies that are equal in all weights, if there are any."""
    locked = [
        f"{axis} {s['distinct']} of {s['units']} distinct"
        for axis, s in certificate.get("symmetry", {}).items()
        if s["distinct"] < s["units"]
    ]
    return (
        f"\ncopies that can never part (but by asymmetric moments): {', '.join(locked)}; set noise or split"
        if locked
        else ""
    )


def _fusion_text(certificate: Json, text: str) -> str:
    if "fusion" not in certificate:
        return ""
    fusion = certificate["fusion"]
    parents = ", ".join(f"{loss:.4f}" for loss in fusion["loss_parents"])
    return (
        f"fusion (not exact by design): loss {fusion['loss_fused']:.4f} on {text}; of the models {parents}, "
        f"of the mean of their logits {fusion['loss_mean']:.4f}\n"
    )


def _plan_text(plan: Json) -> str:
    """A plan in lines; `--json` lists the tensors of every block."""
    from growlm.checkpoint.disk import human_bytes
    from growlm.train.console import count

    old, new = plan["parameters"]
    exact = "exact" if plan["exact"] else "not exact"
    outside = [t for t in plan["tensors"] if not t["name"].startswith("blocks.")]
    block = [t for t in plan["tensors"] if t["name"].startswith("blocks.0.")]
    blocks = [
        f"{i}<-{source if source >= 0 else 'none'}{'' if start == 'kept' else f' {start}'}"
        for i, (source, start) in enumerate(plan["layers"])
    ]
    return "\n".join(
        [
            f"{count(old)} -> {count(new)} parameters by {plan['operator']} / {plan['depth']} ({exact})",
            f"  writes {human_bytes(plan['bytes'])} in about {_duration(plan['seconds'])}"
            f" at {plan['rate'] / 1e6:,.0f} MB/s; needs at most {human_bytes(plan['peak_memory'])} of memory",
            f"  {plan['certificate']} certificate: {human_bytes(plan['certificate_memory'])} of memory",
            *map(_tensor_text, outside),
            "  every block, by the example of the first:",
            *map(_tensor_text, block),
            *textwrap.wrap(f"blocks: {', '.join(blocks)}", 108, initial_indent="  ", subsequent_indent="  "),
        ]
    )


def _tensor_text(tensor: Json) -> str:
    from growlm.checkpoint.disk import human_bytes

    shape = " x ".join(map(str, tensor["shape"]))
    source = f"from {tensor['from']}: {tensor['how']}" if tensor["from"] else tensor["how"]
    return f"    {tensor['name']:<30} {shape:>16} {human_bytes(tensor['bytes']):>10}  {source}"


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
