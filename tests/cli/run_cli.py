"""The command as a user's shell runs it: its exit code and what it prints, in a forked child or for real."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from growlm.cli.main import main
from tests.checkpoint.helpers import in_child


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def growlm(*args: object, fault: str = "") -> Done:
    """Run `growlm ARGS` in a forked child, which saves importing torch again."""
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")

        def command() -> None:
            sys.stdout, sys.stderr = out.open("w", encoding="utf-8"), err.open("w", encoding="utf-8")
            os.environ["MALLOC_TOP_PAD_"] = "131072"  # set: the command does not restart itself
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
