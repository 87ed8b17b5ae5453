"""`growlm ckpt list | verify`: what a run has saved, and whether every byte of it is still so."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="List and verify checkpoints.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="A run folder, its checkpoints folder, or one checkpoint.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON list.")]


@app.command("list")
def list_(folder: Folder, as_json: Json = False) -> None:
    """List the checkpoints of a run, newest first, as their manifests describe them."""
    rows = [_describe(path) for path in _find(folder)]
    typer.echo(json.dumps(rows) if as_json else "\n".join(map(_line, rows)) or "no checkpoint yet")


@app.command()
def verify(folder: Folder, as_json: Json = False) -> None:
    """Hash every byte of every checkpoint; exit code 65 if any is damaged."""
    from growlm.checkpoint.store import CheckpointStore
    from growlm.errors import CheckpointError

    rows = [{"name": path.name, "problems": CheckpointStore.verify(path)} for path in _find(folder)]
    lines = [f"{row['name']:<22} {'; '.join(row['problems']) or 'ok'}" for row in rows]
    typer.echo(json.dumps(rows) if as_json else "\n".join(lines) or "no checkpoint yet")
    if any(row["problems"] for row in rows):
        raise typer.Exit(CheckpointError.exit_code)


def _find(folder: Path) -> list[Path]:
    """The checkpoints meant by a path, newest first."""
    from growlm.checkpoint.manifest import MANIFEST
    from growlm.checkpoint.store import CheckpointStore, Entry
    from growlm.errors import CheckpointError

    if not folder.is_dir():
        raise CheckpointError("There is no such folder", where=str(folder))
    if Entry.of(folder) or (folder / MANIFEST).exists():
        return [folder]
    inner = folder / "checkpoints"
    return [
        entry.path for entry in CheckpointStore(inner if inner.is_dir() else folder, keep=1).checkpoints()
    ]


def _describe(path: Path) -> dict[str, Any]:
    """One row of the list: what the manifest says, or why it cannot."""
    from growlm.checkpoint.manifest import MANIFEST, Manifest
    from growlm.errors import CheckpointError

    try:
        manifest = Manifest.load(path / MANIFEST)
    except CheckpointError as error:
        return {"name": path.name, "problem": error.why}
    row = manifest.model_dump(include={"step", "stage", "tokens", "created", "boundary", "model"})
    return {"name": path.name, **row, "bytes": sum(file.bytes for file in manifest.files.values())}


def _line(row: dict[str, Any]) -> str:
    from growlm.checkpoint.disk import human_bytes

    if "problem" in row:
        return f"{row['name']:<22} damaged: {row['problem']}"
    saved = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"]))
    growth = (row["boundary"] or "").replace("_", " ")
    columns = f"{saved}  stage {row['stage']}  {row['tokens']:>15,} tokens  {human_bytes(row['bytes']):>10}"
    return f"{row['name']:<22} {columns}  {growth}".rstrip()
