"""The command as a user's shell runs it: its exit code and what it prints, in a forked child or for real."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from growlm.cli.main import main
from growlm.data.prepare import prepare
from growlm.testing.tiny import VOCABULARY, write_corpus, write_recipe
from tests.checkpoint.helpers import in_child

ONE = (
    "stages=[{name = 'only', d_model = 16, n_heads = 2, d_ff = 32, n_layers = 1,"
    " tokens = 512, seq_len = 16, batch_size = 8}]"
)
"""The only stage: four steps."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def growlm(*args: object, fault: str = "", stdin: str = "") -> Done:
    """Run `growlm ARGS` in a forked child, which saves importing torch again."""
    with TemporaryDirectory() as folder:
        out, err, given = Path(folder, "out"), Path(folder, "err"), Path(folder, "in")
        given.write_text(stdin, encoding="utf-8")

        def command() -> None:
            sys.stdin = given.open(encoding="utf-8")
            sys.stdout, sys.stderr = out.open("w", encoding="utf-8"), err.open("w", encoding="utf-8")
            sys.argv = ["growlm", *map(str, args)]
            code: object = 0
            try:
                main()
            except SystemExit as exit_:
                code = exit_.code
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 0 if code is None else 1)

        code = in_child(command, fault)
        return Done(code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))


def train_four_steps(folder: Path) -> Path:
    """Make `data`, `tiny.toml` and `run`, four steps of its smallest shape, in a folder; the recipe."""
    text = write_corpus(folder / "text")
    prepare(folder / "data", text, vocab_size=VOCABULARY, validation_share=0.1)
    recipe = write_recipe(folder / "tiny.toml", folder / "data")
    assert growlm("train", recipe, "--run", folder / "run", "--set", ONE).code == 0
    return recipe
