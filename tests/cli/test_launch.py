"""`growlm launch`: the commands it writes, and the batch script at work with a Slurm of stubs."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.run_cli import growlm

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "laptop.toml"

SRUN = """#!/bin/bash
echo "$MASTER_ADDR $MASTER_PORT" >>"$RECORD/srun"
code=$(head -n 1 "$RECORD/codes")
sed -i 1d "$RECORD/codes"
while [ "$1" != bash ]; do echo "$1" >>"$RECORD/flags"; shift; done
SLURM_PROCID=5 SLURM_LOCALID=1 SLURM_NTASKS=8 SLURM_NTASKS_PER_NODE=2 "$@"
exit "$code"
"""
"""Runs the task once, as rank 5, and ends as it is told."""

SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then printf 'node7\\nnode8\\n'; else echo "$@" >>"$RECORD/scontrol"; fi
"""

PYTHON = """#!/bin/bash
echo "$RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $OMP_NUM_THREADS" >>"$RECORD/python"
printf '%s\\n' "$@" >"$RECORD/words"
"""


def run_script(script: str, folder: Path, codes: list[int]) -> tuple[int, dict[str, str], str]:
    """(exit code, what each stub recorded, output) of a batch script whose steps end with these codes."""
    stubs, record = folder / "bin", folder / "record"
    for path in (stubs, record):
        path.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "python": PYTHON}.items():
        (stubs / name).write_text(text)
        (stubs / name).chmod(0o755)
    (record / "codes").write_text("".join(f"{code}\n" for code in codes))
    slurm = {"SLURM_JOB_ID": "123456", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_CPUS_PER_TASK": "12"}
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    env |= {"PATH": f"{stubs}:{os.environ['PATH']}", "RECORD": str(record), **slurm}
    done = subprocess.run(["bash"], input=script, env=env, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.returncode, {p.name: p.read_text() for p in record.iterdir()}, done.stdout


def batch_script(*flags: object) -> str:
    done = growlm("launch", "slurm", RECIPE, *flags, "--dry-run")
    assert done.code == 0, done.err
    return done.out


def test_torchrun_on_one_machine_and_on_several(tmp_path: Path) -> None:
    torchrun = ("launch", "torchrun", RECIPE)
    train = f"-m -- growlm train {RECIPE}"
    assert growlm(*torchrun, "--dry-run").out == (
        f"torchrun --standalone --nproc-per-node auto --max-restarts 3 {train}\n"
    )
    flags = ("--nodes", 2, "--nproc", 8, "--rdzv-endpoint", "node7:29400", "--set", "name=ab")
    done = growlm(*torchrun, *flags, "--run", tmp_path / "my run", "-o", tmp_path / "start")
    assert (done.code, done.out) == (0, "")
    assert shlex.split((tmp_path / "start").read_text()) == [
        *("torchrun", "--nnodes", "2", "--rdzv-backend", "c10d"),
        *("--rdzv-endpoint", "node7:29400", "--rdzv-id", "ab"),
        *f"--nproc-per-node 8 --max-restarts 3 {train} --run".split(),
        *(str(tmp_path / "my run"), "--set", "name=ab"),
    ]


def test_torchrun_is_executed(tmp_path: Path) -> None:
    stub = tmp_path / "torchrun"
    stub.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" >{tmp_path}/words\nexit 7\n')
    stub.chmod(0o755)
    code = f"""
import sys
sys.executable = {str(tmp_path / "python")!r}
sys.argv = ["growlm", "launch", "torchrun", {str(RECIPE)!r}, "--nproc", "2"]
from growlm.cli.main import main
main()
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 7
    words = (tmp_path / "words").read_text().split()
    assert words[:3] == ["--standalone", "--nproc-per-node", "2"]


def test_the_script_names_what_it_needs_and_is_bash() -> None:
    flags = ("--partition", "gpu", "--account", "a1", "--time", "2-0", "--option=--qos=high")
    script = batch_script("--nodes", 2, "--cpus-per-task", 12, *flags)
    wanted = [line[len("#SBATCH ") :] for line in script.splitlines() if line.startswith("#SBATCH")]
    assert wanted == [
        *("--job-name=laptop", "--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8", "--cpus-per-task=12"),
        *("--time=2-0", "--partition=gpu", "--account=a1", "--signal=TERM@180", "--requeue"),
        *("--open-mode=append", "--output=laptop-%j.log", "--qos=high"),
    ]
    assert subprocess.run(["bash", "-n"], input=script, text=True, timeout=60).returncode == 0
    without = batch_script("--gpus-per-node", 0, "--ranks-per-node", 4)
    assert "gpu" not in without
    assert "--ntasks-per-node=4" in without


def test_a_task_is_a_rank(tmp_path: Path) -> None:
    script = batch_script("--nodes", 2, "--set", "name=ab", "--run", tmp_path / "my run")
    code, record, _ = run_script(script, tmp_path, [0])
    assert code == 0
    assert record["python"] == "5 8 1 2 12\n"
    assert record["words"].splitlines() == [
        *("-m", "growlm", "train", str(RECIPE), "--run", str(tmp_path / "my run"), "--set", "name=ab"),
    ]
    assert record["srun"] == "node7 23456\n"
    assert record["flags"].split() == ["--kill-on-bad-exit=1", "--gpu-bind=none"]
    assert "scontrol" not in record


def test_exit_75_puts_the_job_back_into_the_queue(tmp_path: Path) -> None:
    code, record, out = run_script(batch_script(), tmp_path, [75, 0])
    assert code == 0
    assert record["scontrol"] == "requeue 123456\n"
    assert record["codes"] == "0\n", "the next start is the queue's"
    assert "back into the queue" in out


def test_a_crash_is_started_again_on_another_port(tmp_path: Path) -> None:
    code, record, _ = run_script(batch_script(), tmp_path, [1, 137, 139, 0])
    assert code == 0
    assert record["srun"].split() == ["node7", "23456", "node7", "23457", "node7", "23458", "node7", "23459"]


def test_crash_after_crash_ends_the_job(tmp_path: Path) -> None:
    code, record, out = run_script(batch_script("--max-restarts", 2), tmp_path, [137, 1, 134, 0])
    assert code == 134
    assert record["codes"] == "0\n"
    assert "2 restarts are used up" in out


@pytest.mark.parametrize("code", [2, 65, 70, 76, 77, 78, 79])
def test_what_a_person_must_mend_ends_the_job(tmp_path: Path, code: int) -> None:
    ended, record, _ = run_script(batch_script(), tmp_path, [code, 0])
    assert ended == code
    assert record["codes"] == "0\n"
    assert "scontrol" not in record


def test_the_script_goes_to_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = batch_script()
    stub = tmp_path / "sbatch"
    stub.write_text(f"#!/bin/bash\ncat >{tmp_path}/job\nexit 3\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert growlm("launch", "slurm", RECIPE).code == 3
    assert (tmp_path / "job").read_text() == script


def test_bad_flags_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [
        (("torchrun", RECIPE, "--nodes", 2), "2 machines need a place to meet"),
        (("torchrun", tmp_path / "none.toml", "--dry-run"), "none.toml"),
        (("slurm", RECIPE, "--set", "optim.lrr=1", "--dry-run"), "optim.lr"),
        (("slurm", RECIPE), "sbatch is not on this machine"),
    ]
    monkeypatch.setenv("PATH", str(tmp_path))
    for words, message in cases:
        done = growlm("launch", *words)
        assert done.code == 2, done
        assert message in done.err


def test_the_ranks_of_the_recipe_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("growlm.plan.auto.ranks_of", lambda _: 8)
    words = ("launch", "torchrun", RECIPE, "--nodes", 2, "--rdzv-endpoint", "node7:29400", "--dry-run")
    assert "--nproc-per-node 4" in growlm(*words).out
    refused = growlm(*words, "--nproc", 3)
    assert refused.code == 2
    assert "batch_size 32, not a multiple of dp 6" in refused.err


def test_the_skypilot_example_is_yaml() -> None:
    yaml = pytest.importorskip("yaml")
    task = yaml.safe_load((ROOT / "recipes" / "cluster" / "skypilot.yaml").read_text())
    assert {"name", "resources", "num_nodes", "setup", "run"} <= task.keys()
    assert "growlm launch torchrun" in task["run"]
