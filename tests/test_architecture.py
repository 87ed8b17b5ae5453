"""The house rules that a machine can check (floors, imports, sizes, nothing that could run foreign code)."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "growlm"

FLOORS = [
    "cli", "hf", "api", "report", "evaluate", "inference", "search", "train", "parallel", "convert",
    "checkpoint", "growth", "data", "plan", "scaling", "model", "recipe", "testing", "errors",
]  # fmt: skip
"""From the top; a floor may import itself and what is below it."""

WITHOUT_TORCH = (
    "cli", "report", "recipe", "plan", "scaling", "data",
    "model/parameters.py", "train/record.py", "checkpoint/manifest.py",
    "evaluate/result.py", "evaluate/published.py",
)  # fmt: skip
"""Folders and files that can be imported without torch."""

FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "tarfile",
    "zipfile",
}

FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the whole name, not a relative import"
            assert node.module is not None
            yield node.lineno, node.module
            if node.module == "growlm":
                yield from ((node.lineno, f"growlm.{alias.name}") for alias in node.names)


def floor_of(module: str) -> str | None:
    """The floor of a module of the package; None for the package itself and its entry point."""
    parts = module.split(".")
    return parts[1] if parts[0] == "growlm" and len(parts) > 1 and parts[1] != "__main__" else None


def test_every_floor_is_in_the_list() -> None:
    assert {floor_of(module_name(path)) for path in FILES} - {None} <= set(FLOORS)


def test_imports_run_downwards() -> None:
    wrong = []
    for path in FILES:
        here = floor_of(module_name(path))
        for line, module in imports(path):
            there = floor_of(module)
            if here and there and there in FLOORS and FLOORS.index(there) < FLOORS.index(here):
                wrong.append(f"{path.relative_to(ROOT)}:{line} ({here}) imports {module}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_module_imports(path: Path) -> None:
    if path.name != "__main__.py":
        importlib.import_module(module_name(path))


def test_what_must_be_light_does_not_import_torch() -> None:
    light = [
        module_name(path)
        for path in FILES
        if any(
            path.relative_to(PACKAGE).as_posix() == w or path.relative_to(PACKAGE).parts[0] == w
            for w in WITHOUT_TORCH
        )
    ]
    code = f"""
import importlib, sys
for name in {light!r}:
    importlib.import_module(name)
    assert "torch" not in sys.modules, name + " imports torch"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_files_are_short() -> None:
    lines = {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in FILES
    }
    assert {name: n for name, n in lines.items() if n > 400} == {}
    assert lines.get("train/loop.py", 0) <= 300


def test_nothing_can_run_foreign_code() -> None:
    wrong = []
    for path in FILES:
        wrong += [
            f"{path.relative_to(ROOT)}:{line} imports {module}"
            for line, module in imports(path)
            if module.split(".")[0] in FORBIDDEN_MODULES
        ]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in FORBIDDEN_CALLS or called in ("torch.load", "torch.save", "torch.hub.load"):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} calls {called}")
                wrong += [
                    f"{path.relative_to(ROOT)}:{node.lineno} passes {k.arg}"
                    for k in node.keywords
                    if k.arg in ("trust_remote_code", "allow_pickle") and ast.unparse(k.value) != "False"
                ]
    assert not wrong, "\n".join(wrong)
