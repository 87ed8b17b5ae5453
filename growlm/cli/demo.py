"""`growlm demo`: the whole job in minutes: prepare, train, grow twice, be killed, resume, sample, report."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from growlm.data.manifest import Manifest

KILL_AFTER_SAVE = 12  # steps past a save, so that the resumed run has something to repeat


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the demo's data and run.")] = Path("runs/demo"),
    data: Annotated[
        list[str] | None,
        typer.Option(help="Own text: name=PATH or PATH (txt, md, jsonl, gz, parquet). Repeat for more."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove an earlier demo there first.")] = False,
) -> None:
    """Train, grow, kill and resume a small bilingual model on this machine, and show what happened."""
    import shutil

    started = time.monotonic()
    prepared, run = out / "data", out / "run"
    if fresh:
        for folder, mark in ((prepared, "tokenizer.json"), (run, "metrics.jsonl")):
            _check_removable(folder, mark)
        for folder in (prepared, run):
            shutil.rmtree(folder, ignore_errors=True)
    _say("1. text -> tokenizer -> token shards")
    sets = _settings(_prepare(prepared, data or []), prepared, own=bool(data))
    command = [sys.executable, "-P", "-m", "growlm", "train", "demo", "--run", str(run), *sets]
    _say("2. train, grow, train; in the middle of the second stage the run gets SIGKILL")
    code = _train(command, kill_at=None if (run / "metrics.jsonl").exists() else _kill_step(sets))
    if code == -signal.SIGKILL:
        _say("   killed with SIGKILL, as planned\n3. the same command again")
        code = _train(command, kill_at=None)
    if code:
        raise typer.Exit(code)
    _show(run, time.monotonic() - started)


def _check_removable(folder: Path, mark: str) -> None:
    """Only what a demo wrote is removed: what bears the mark of it."""
    from growlm.errors import RecipeError

    if folder.exists() and not (folder / mark).is_file():
        raise RecipeError(
            "this folder was not written by a demo, so --fresh will not remove it",
            where=str(folder),
            fix="name another folder with --out",
        )


def _prepare(folder: Path, flags: list[str]) -> Manifest:
    """Prepare the text unless an earlier demo did."""
    from growlm.data.dataset import TokenDataset
    from growlm.data.demo_text import demo_sources
    from growlm.data.prepare import prepare
    from growlm.data.progress import Progress
    from growlm.errors import RecipeError
    from growlm.recipe.load import load_recipe

    if folder.exists():
        if flags:
            raise RecipeError(
                "this folder holds an earlier demo, prepared from its own text",
                where=str(folder),
                fix="add --fresh to replace it, or name another folder with --out",
            )
        return TokenDataset.open(folder).manifest
    vocab_size = load_recipe("demo").model.vocab_size
    return prepare(folder, _own(flags) or demo_sources(), vocab_size=vocab_size, progress=Progress())


def _own(flags: list[str]) -> dict[str, list[Path]]:
    """Sources from --data: a name before `=`, or the file's own."""
    sources: dict[str, list[Path]] = {}
    for flag in flags:
        name, equals, path = flag.partition("=")
        sources.setdefault(name if equals else Path(flag).name.partition(".")[0], []).append(
            Path(path if equals else flag)
        )
    return sources


def _settings(manifest: Manifest, folder: Path, *, own: bool) -> list[str]:
    """What the preset cannot know: where the data is and, for a user's own text, what is in it."""
    values = [f"data.path={folder}", f"model.vocab_size={-(-manifest.tokenizer.vocab_size // 64) * 64}"]
    if own:
        weights = ", ".join(f'"{name}" = 1' for name in manifest.sources)
        values += [f"data.mixture={{ {weights} }}", "eval.prompts=[]"]
    return [arg for value in values for arg in ("--set", value)]


def _kill_step(sets: list[str]) -> int:
    """A step in the middle of the second stage, some steps after a save."""
    from growlm.recipe.load import load_recipe

    recipe = load_recipe("demo", sets[1::2])
    every = recipe.checkpoint.every_steps or 25
    return recipe.stages[0].steps + recipe.stages[1].steps // 2 // every * every + KILL_AFTER_SAVE


def _train(command: list[str], kill_at: int | None) -> int:
    """Run the training command; it kills itself after step `kill_at`."""
    fault = {} if kill_at is None else {"GROWLM_FAULT": f"train.after_step:kill@{kill_at}"}
    return subprocess.run(command, env=os.environ | fault, check=False, stdout=subprocess.DEVNULL).returncode


def _show(run: Path, seconds: float) -> None:
    """Samples, the report, and the closing table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from growlm.errors import GrowLMError
    from growlm.report.render import write_report
    from growlm.report.summary import summary
    from growlm.train.record import RECORD_NAME, read_record

    records = read_record(run / RECORD_NAME)
    facts = summary(run)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print("\n[bold]What the model writes now[/bold]")
    for sample in _last_samples(records):
        text = re.sub(r"\s+", " ", sample["text"])
        console.print(f"  [bold]{escape(sample['prompt'])}[/bold]{escape(text)}")
    table = Table(
        "stage", "shape", "parameters", "tokens", "loss", "validation", "tokens/s", "|Δlogit|", "|Δloss|"
    )
    growths = {r["stage"]: r for r in records if r["kind"] == "growth"}
    for stage in facts["stages"]:
        table.add_row(*_row(stage, growths.get(stage["index"])))
    console.print(table)
    verified = [r for r in records if r["kind"] == "verified"]
    for r in verified:
        verdict = "bit-identical" if r["identical"] else "NOT identical"
        console.print(f"resume verified: {verdict} ({r['replayed']} steps repeated after SIGKILL)")
    console.print(f"report: {write_report(run)}   ({seconds:.0f} s in all)", soft_wrap=True)
    if not verified or not all(r["identical"] for r in verified):
        raise GrowLMError(
            "the resumed run was not verified to be the same as before it was killed",
            where=str(run),
            fix="run the demo again with --fresh, and please report it if this comes back",
        )


def _last_samples(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    samples = [r for r in records if r["kind"] == "sample"]
    return [r for r in samples if r["step"] == samples[-1]["step"]]


def _row(stage: dict[str, Any], growth: dict[str, Any] | None) -> list[str]:
    """One line of the closing table."""
    from growlm.train.console import count

    s = stage["shape"]
    certificate = growth["certificate"] if growth else None
    return [
        stage["name"],
        f"d{s['d_model']} h{s['n_heads']}/{s['n_kv_heads']} f{s['d_ff']} L{s['n_layers']}",
        count(stage["parameters"]),
        count(stage["trained"]),
        f"{stage['loss']:.3f}",
        "  ".join(f"{name} {loss:.3f}" for name, loss in stage["valid"].items()),
        count(stage["tokens_per_second"] or 0),
        *(f"{abs(certificate[k]):.1g}" if certificate else "-" for k in ("max_dlogit", "dloss")),
    ]


def _say(text: str) -> None:
    typer.secho(text, bold=True, err=True)
