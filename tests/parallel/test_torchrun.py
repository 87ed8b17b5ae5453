"""Whole runs under torchrun: killed and frozen ranks, three layouts, finished without help."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from growlm.data.prepare import prepare
from growlm.recipe.load import load_recipe
from growlm.testing.tiny import VOCABULARY, write_corpus, write_recipe
from growlm.train.record import RECORD_NAME, read_record
from growlm.train.supervisor import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LAYOUTS = (
    "stages.small.layout.dp=4",
    *("stages.masked.layout.dp=2", "stages.masked.layout.tp=2"),
    *("stages.clone.layout.tp=2", "stages.clone.layout.pp=2"),
    *("stages.words.layout.dp=2", "stages.words.layout.pp=2"),
)
PATIENCE = 240.0
TIMEOUTS = ("timeouts.step=8", "timeouts.save=8", "timeouts.eval=8")

Steps = dict[int, tuple[float, float]]
"""Loss and gradient norm of every step."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torchrun")
    prepare(folder / "data", write_corpus(folder / "text"), vocab_size=VOCABULARY, validation_share=0.1)
    return write_recipe(folder / "tiny.toml", folder / "data")


@pytest.fixture(scope="module")
def alone(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Steps:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    run(load_recipe(recipe), folder)
    return steps(folder)


def test_a_rank_killed_in_every_stage_changes_nothing(recipe: Path, alone: Steps, tmp_path: Path) -> None:
    killed: set[int] = set()

    def kill(record: list[dict[str, Any]], ranks: list[int]) -> None:
        stage, done = record[-1]["stage"], sum(r["stage"] == record[-1]["stage"] for r in record)
        if stage not in killed and done >= 3:
            os.kill(ranks[(stage + 1) % 4], signal.SIGKILL)
            killed.add(stage)

    code, _ = train(recipe, tmp_path / "run", kill, restarts=8)
    assert code == 0
    assert killed == {0, 1, 2, 3}
    equal(steps(tmp_path / "run"), alone)
    verified = [r for r in read_record(tmp_path / "run" / RECORD_NAME) if r["kind"] == "verified"]
    assert verified
    assert all(r["identical"] for r in verified)  # with as many ranks the same bits


def test_a_frozen_rank_is_found_with_the_stacks_of_the_others(
    recipe: Path, alone: Steps, tmp_path: Path
) -> None:
    frozen: list[int] = []

    def freeze(record: list[dict[str, Any]], ranks: list[int]) -> None:
        if record[-1]["step"] >= 10 and not frozen:
            frozen.append(ranks[2])
            os.kill(ranks[2], signal.SIGSTOP)

    code, _ = train(recipe, tmp_path / "run", freeze, *TIMEOUTS, restarts=2)
    assert code == 0
    assert frozen
    equal(steps(tmp_path / "run"), alone)
    events = [r["message"] for r in read_record(tmp_path / "run" / RECORD_NAME) if r["kind"] == "event"]
    told = [m for m in events if "ran out of time in phase" in m]
    assert len(told) == 3
    assert [m for m in events if "rank 2 wrote no stacks" in m]  # a stopped process cannot
    path = Path(told[0].rpartition("its stacks: ")[2])
    assert "train_stage" in path.read_text()


def train(
    recipe: Path,
    folder: Path,
    disturb: Callable[[list[dict[str, Any]], list[int]], None],
    *overrides: str,
    restarts: int,
) -> tuple[int, str]:
    """Run the command under torchrun with 4 ranks; `disturb` sees the steps so far and the ranks' pids."""
    settings = [word for text in (*LAYOUTS, *overrides) for word in ("--set", text)]
    words = ["--standalone", "--nproc-per-node", "4", "--max-restarts", str(restarts), "-m", "--"]
    words += ["growlm", "train", str(recipe), "--run", str(folder), *settings]
    log = folder.with_suffix(".log")
    with log.open("w") as out:
        command = [sys.executable, "-m", "torch.distributed.run", *words]
        agent = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=out, stderr=out)
        deadline = time.monotonic() + PATIENCE
        try:
            while agent.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
                record, ranks = lines(folder), children(agent.pid)
                if record and len(ranks) == 4:
                    disturb(record, ranks)
            assert agent.poll() is not None, log.read_text()[-4000:]
        finally:
            for pid in children(agent.pid):
                os.kill(pid, signal.SIGKILL)
            agent.kill()
    return agent.wait(), log.read_text()


def lines(folder: Path) -> list[dict[str, Any]]:
    """The steps on record so far, whole lines only."""
    path = folder / RECORD_NAME
    text = path.read_text().rpartition("\n")[0] if path.is_file() else ""
    return [r for r in map(json.loads, filter(None, text.split("\n"))) if r["kind"] == "step"]


def children(pid: int) -> list[int]:
    """The living children of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended in the meantime
            if path.read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(path.parent.name))
    return sorted(found)


def steps(folder: Path) -> Steps:
    return {
        r["step"]: (r["loss"], r["grad_norm"])
        for r in read_record(folder / RECORD_NAME)
        if r["kind"] == "step"
    }


def equal(found: Steps, expected: Steps) -> None:
    """Losses to 1e-6; gradient norms to 1e-5, after up to 29 steps of Adam on what differs."""
    assert found.keys() == expected.keys()
    for step, (loss, norm) in expected.items():
        assert found[step][0] == pytest.approx(loss, rel=1e-6)
        assert found[step][1] == pytest.approx(norm, rel=1e-5)
