"""`growlm train` as a command: in a child for its exit codes, and for real where signals count."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from growlm.checkpoint.store import CheckpointStore
from growlm.data.prepare import prepare
from growlm.testing.tiny import VOCABULARY, write_corpus, write_recipe
from growlm.train.record import read_record
from tests.cli.run_cli import growlm

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
CORPORA = {"en": "en-books.jsonl.gz", "zh": "zh-modern.jsonl.gz"}
STEP_FIELDS = ("step", "stage", "tokens", "loss", "grad_norm", "lr", "mask", "applied")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe, with prepared data."""
    folder = tmp_path_factory.mktemp("cli")
    prepare(folder / "data", write_corpus(folder / "text"), vocab_size=VOCABULARY, validation_share=0.1)
    return write_recipe(folder / "tiny.toml", folder / "data")


def result(run: Path) -> tuple[list[tuple[object, ...]], dict[str, str]]:
    """Every step once, and the hashes of the newest checkpoint's files."""
    steps = [r for r in read_record(run / "metrics.jsonl") if r["kind"] == "step"]
    assert [r["step"] for r in steps] == list(range(1, len(steps) + 1))
    newest = CheckpointStore(run / "checkpoints", keep=2).latest_valid(pytest.fail)
    assert newest is not None
    assert newest.manifest.step == len(steps)
    return [tuple(r[k] for k in STEP_FIELDS) for r in steps], {
        name: file.xxh3 for name, file in newest.manifest.files.items()
    }


def test_the_same_command_trains_continues_and_has_nothing_left_to_do(recipe: Path, tmp_path: Path) -> None:
    command = ("train", recipe, "--run", tmp_path / "run", "--json")
    assert growlm(*command, fault="train.after_step:kill@14").code == -9
    done = growlm(*command)
    assert done.code == 0
    assert json.loads(done.out) == {"run": str(tmp_path / "run"), "step": 29}
    assert "resuming at step 10 from step-00000010" in done.err
    assert "resume verified: 3 steps replayed, bit-identical" in done.err
    assert json.loads(growlm(*command).out)["step"] == 29
    assert growlm("train", recipe, "--run", tmp_path / "straight").code == 0
    assert result(tmp_path / "run") == result(tmp_path / "straight")


def test_failures_have_their_exit_codes_and_one_message(recipe: Path, tmp_path: Path) -> None:
    run = ("train", recipe, "--run", tmp_path / "run")
    assert growlm(*run, fault="train.after_step:kill@7").code == -9
    cases = [
        ((*run, "--set", "optim.lr=1e-4"), "", 78, "pass --accept-changes"),
        ((*run, "--set", "seed=3", "--accept-changes"), "", 78, "seed: 7 -> 3"),
        ((*run, "--set", "optim.lrr=1"), "", 2, "optim.lr"),
        (("train", tmp_path / "none.toml"), "", 2, "none.toml"),
        ((*run, "--set", "data.path=nowhere"), "", 65, "nowhere"),
        (run, "checkpoint.before_manifest:enospc@2", 76, "No space left"),
    ]
    for command, fault, code, message in cases:
        done = growlm(*command, fault=fault)
        assert done.code == code, done
        assert message in done.err
        assert "Traceback" not in done.err
    assert growlm(*run, "--set", "optim.lr=1e-4", "--accept-changes").code == 0


def test_the_run_folder_is_named_by_the_recipe(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert growlm("train", recipe, "--set", "name=mine", fault="train.after_step:kill@4").code == -9
    assert (tmp_path / "runs" / "mine" / "metrics.jsonl").is_file()


def start(command: Sequence[object]) -> subprocess.Popen[bytes]:
    """`python -m growlm ...`, for real, on one thread."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "growlm", *map(str, command)]
    return subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_steps(run: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Until the record has so many more lines of steps than before."""
    record = run / "metrics.jsonl"
    before = _steps(record)
    while _steps(record) < before + count:
        assert process.poll() is None, f"it ended with {process.returncode} before step {count}"
        time.sleep(0.01)


def _steps(record: Path) -> int:
    return record.read_bytes().count(b'{"kind": "step"') if record.exists() else 0


@pytest.mark.slow
def test_signals_to_the_real_command(recipe: Path, tmp_path: Path) -> None:
    longer = [f"stages.{name}.tokens={tokens}" for name, tokens in (("small", 12_800), ("words", 12_800))]
    sets = [word for text in longer for word in ("--set", text)]
    command = ("train", recipe, "--run", tmp_path / "run", *sets)
    for number in (signal.SIGTERM, signal.SIGINT):
        process = start(command)
        wait_for_steps(tmp_path / "run", 5, process)
        process.send_signal(number)
        assert process.wait() == 75
        last = [r for r in read_record(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "end"][-1]
        assert last["status"] == "preempted"
        assert result(tmp_path / "run"), "saved at the last step"
    assert start(command).wait() == 0
    assert growlm("train", recipe, "--run", tmp_path / "straight", *sets).code == 0
    assert result(tmp_path / "run") == result(tmp_path / "straight")


# --- the claim of the project, on real text ------------------------------------------------------------


SMALL = """
model.head_dim=16
train.threads=1
checkpoint.every_steps=5
eval.every_tokens=20_000
eval.tokens=1024
eval.sample_tokens=4
schedule.warmup_steps=10
stages.small.d_model=32
stages.small.n_heads=2
stages.small.n_kv_heads=1
stages.small.d_ff=64
stages.small.n_layers=2
stages.wide.d_model=48
stages.wide.n_heads=4
stages.wide.n_kv_heads=2
stages.wide.d_ff=96
stages.wide.n_layers=2
stages.wide.growth.ramp_steps=30
stages.deep.d_model=48
stages.deep.n_heads=4
stages.deep.n_kv_heads=2
stages.deep.d_ff=128
stages.deep.n_layers=4
stages.deep.growth.ramp_steps=30
stages.small.seq_len=32
stages.wide.seq_len=32
stages.deep.seq_len=64
stages.small.batch_size=8
stages.wide.batch_size=8
stages.deep.batch_size=8
stages.deep.micro_batch_size=4
stages.small.tokens=12_800
stages.wide.tokens=12_800
stages.deep.tokens=25_600
"""
"""The recipe of `growlm init`, scaled down: 50 steps in each of three stages."""


def first_lines(source: Path, target: Path, size: int) -> Path:
    """The first lines of a gzipped file, about `size` bytes of them."""
    with gzip.open(source, "rb") as file:
        target.write_bytes(b"".join(file.readlines(size)))
    return target


@pytest.fixture(scope="module")
def real_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe from `growlm init` for the beginnings of two real corpora."""
    corpora = {name: SHARED / "data" / "corpora" / file for name, file in CORPORA.items()}
    if not all(path.is_file() for path in corpora.values()):
        pytest.skip("the corpora beside the checkout are not here")
    folder = tmp_path_factory.mktemp("real")
    sources = [
        word
        for name, path in corpora.items()
        for word in ("--source", f"{name}={first_lines(path, folder / f'{name}.jsonl', 1_500_000)}")
    ]
    flags = ("--vocab-size", 1024, "--validation-share", 0.1)
    done = growlm("data", "prepare", folder / "data", *sources, *flags)
    assert done.code == 0, done.err
    done = growlm("init", folder / "recipe.toml", "--data", folder / "data")
    assert done.code == 0, done.err
    return folder / "recipe.toml"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_killed_twenty_times_at_random_equals_never_killed(
    precision: str, real_recipe: Path, tmp_path: Path
) -> None:
    draw = random.Random(precision)
    sets = [word for text in [*SMALL.split(), f"train.precision={precision}"] for word in ("--set", text)]
    command = ("train", real_recipe, "--run", tmp_path / "killed", *sets)
    for kill in range(20):
        process = start(command)
        if kill % 5 < 4:  # in training, and in what lies between two steps
            wait_for_steps(tmp_path / "killed", draw.randrange(1, 12), process)
            time.sleep(draw.uniform(0, 0.06))
        else:  # anywhere from the first import on
            time.sleep(draw.uniform(0, 3))
        assert process.poll() is None
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert start(command).wait() == 0
    assert start(("train", real_recipe, "--run", tmp_path / "never", *sets)).wait() == 0
    assert result(tmp_path / "killed") == result(tmp_path / "never")
    verified = [r for r in read_record(tmp_path / "killed" / "metrics.jsonl") if r["kind"] == "verified"]
    assert verified
    assert all(r["identical"] for r in verified)
