"""The shell around the verbs: help without torch, and one message and exit code for every failure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from growlm import __version__, errors
from growlm.cli import main as shell

ROOT = Path(__file__).resolve().parents[2]


def verbs(app: typer.Typer) -> list[list[str]]:
    """The words of every verb: `["train"]`, `["data"]`, `["data", "prepare"]`."""
    named = [
        [command.name or getattr(command.callback, "__name__", "")] for command in app.registered_commands
    ]
    for group in app.registered_groups:
        inner = verbs(group.typer_instance) if group.typer_instance else []
        named += [[group.name or "", *words] for words in [[], *inner]]
    return named


VERBS = verbs(shell.app)


def growlm(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "growlm", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("verb", [[], *VERBS], ids=" ".join)
def test_help_of_every_verb(verb: list[str]) -> None:
    result = growlm(*verb, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "Usage:" in result.stdout


def test_the_command_line_is_imported_without_torch_or_anything_heavy() -> None:
    code = (
        "import sys, growlm.cli.main; print({'torch', 'numpy', 'pydantic', 'tokenizers'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert result.stdout.strip() == "set()"


def test_the_verbs_are_those_of_the_documentation() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert {verb[0] for verb in VERBS} == {
        "demo",
        "init",
        "schema",
        "doctor",
        "data",
        "plan",
        "search",
        "coordcheck",
        "predict",
        "train",
        "launch",
        "grow",
        "import",
        "export",
        "eval",
        "sample",
        "serve",
        "watch",
        "report",
        "compare",
        "ckpt",
    }
    assert all(
        f"`{' '.join(verb)}`" in page
        for verb in VERBS
        if verb not in (["data"], ["ckpt"], ["launch"], ["eval"])
    )


def test_version_and_schema() -> None:
    assert growlm("--version").stdout == f"growlm {__version__}\n"
    assert '"additionalProperties": false' in growlm("schema").stdout


@pytest.mark.parametrize("arguments", [["nonsense"], ["init", "--nonsense"], ["init", "a", "b"]])
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    result = growlm(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""


def run(monkeypatch: pytest.MonkeyPatch, failure: BaseException) -> int:
    """Exit code of `main()` when the verb raises `failure`."""
    app = typer.Typer(pretty_exceptions_enable=False)

    def verb() -> None:
        raise failure

    app.command()(verb)
    monkeypatch.setattr(shell, "app", app)
    monkeypatch.setattr(sys, "argv", ["growlm"])
    with pytest.raises(SystemExit) as ended:
        shell.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


CODES = {
    errors.GrowLMError: 1,
    errors.RecipeError: 2,
    errors.DataError: 65,
    errors.CheckpointError: 65,
    errors.EndpointError: 69,
    errors.GrowthError: 70,
    errors.Diverged: 71,
    errors.EdgeError: 72,
    errors.Preempted: 75,
    errors.DiskError: 76,
    errors.LockError: 77,
    errors.DriftError: 78,
    errors.LimitReached: 79,
    errors.RankError: 1,
}


@pytest.mark.parametrize(("kind", "code"), CODES.items())
def test_an_error_is_one_message_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: type[errors.GrowLMError],
    code: int,
) -> None:
    monkeypatch.delenv("GROWLM_DEBUG", raising=False)
    assert run(monkeypatch, kind("it broke", where="here", why="a rule", fix="mend it")) == code
    out, err = capsys.readouterr()
    assert out == ""
    label = (
        "" if issubclass(kind, errors.Preempted) else "error: "
    )  # a run that stops as asked has not failed
    assert err == f"{label}it broke\n  where: here\n  why:   a rule\n  fix:   mend it\n"


def test_the_documented_exit_codes_are_those_of_the_errors() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    listed = {int(line.split("|")[1]) for line in page.splitlines() if line[2:3].isdigit()}
    assert listed == {0, 1, 130, 143} | {kind.exit_code for kind in CODES}


def test_an_unexpected_error_says_how_to_see_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GROWLM_DEBUG", raising=False)
    assert run(monkeypatch, ZeroDivisionError("by zero")) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: unexpected ZeroDivisionError: by zero")
    assert "--debug" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("failure", "code"), [(ZeroDivisionError(), 1), (errors.LockError("locked"), 77)])
def test_debug_shows_the_traceback_and_keeps_the_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failure: Exception, code: int
) -> None:
    monkeypatch.setenv("GROWLM_DEBUG", "1")
    assert run(monkeypatch, failure) == code
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_outside_training_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, KeyboardInterrupt()) == 130


def test_the_debug_flag_reaches_the_failure(tmp_path: Path) -> None:
    taken = tmp_path / "r.toml"
    taken.touch()
    plain, debug = growlm("init", str(taken)), growlm("--debug", "init", str(taken))
    assert (plain.returncode, debug.returncode) == (2, 2)
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr
