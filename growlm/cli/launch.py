"""`growlm launch`: start a recipe on many processes, by torchrun or as a Slurm job; `--dry-run` shows how."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from growlm.errors import RecipeError

if TYPE_CHECKING:  # the command line starts without pydantic
    from growlm.recipe.schema import Recipe

app = typer.Typer(no_args_is_help=True, help="Start a recipe on many processes: torchrun, Slurm.")

RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe file, or a preset's name.")]
RunOption = Annotated[Path | None, typer.Option(help="Run folder; runs/<name> if not given.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override a field: --set optim.lr=3e-4.")]
AcceptOption = Annotated[
    bool, typer.Option("--accept-changes", help="Continue although the recipe or the data changed.")
]
NodesOption = Annotated[int, typer.Option(min=1, help="Machines.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print it, start nothing.")]
OutOption = Annotated[Path | None, typer.Option("--out", "-o", help="Write it to a file, start nothing.")]
RestartsOption = Annotated[int, typer.Option(min=0, help="How often to start again after a crash.")]


@app.command()
def torchrun(
    recipe: RecipeArgument,
    nproc: Annotated[int | None, typer.Option(min=1, help="Processes per machine; one per GPU.")] = None,
    nodes: NodesOption = 1,
    endpoint: Annotated[
        str, typer.Option("--rdzv-endpoint", metavar="HOST:PORT", help="Where several machines meet.")
    ] = "",
    max_restarts: RestartsOption = 3,
    run: RunOption = None,
    set_: SetOption = None,
    accept_changes: AcceptOption = False,
    dry_run: DryRunOption = False,
    out: OutOption = None,
) -> None:
    """Start the processes of this machine; with --nodes, the same command on each of them."""
    loaded, train = _train(recipe, run, set_, accept_changes)
    if nodes > 1 and not endpoint:
        raise RecipeError(
            f"{nodes} machines need a place to meet",
            where="--rdzv-endpoint",
            fix="name the first machine on all of them: --rdzv-endpoint HOST:29400",
        )
    per_node = _per_node(loaded, nodes, nproc, "--nproc")
    meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", loaded.name]
    command = [
        "torchrun",
        *(["--nnodes", str(nodes), *meet] if nodes > 1 else ["--standalone"]),
        *("--nproc-per-node", str(per_node or "auto"), "--max-restarts", str(max_restarts)),
        *("-m", "--", "growlm", *train),  # torchrun would take --run for an option of its own
    ]
    if _shown(shlex.join(command) + "\n", dry_run, out):
        return
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    program = _program("torchrun", path, "install torch in this environment")
    os.execve(program, command, os.environ | {"PATH": path})


@app.command()
def slurm(
    recipe: RecipeArgument,
    nodes: NodesOption = 1,
    gpus_per_node: Annotated[int, typer.Option(min=0, help="GPUs, and so ranks, of a machine.")] = 8,
    ranks_per_node: Annotated[
        int | None, typer.Option(min=1, help="Ranks of a machine without GPUs.")
    ] = None,
    cpus_per_task: Annotated[int | None, typer.Option(min=1, help="Cores of a rank.")] = None,
    time: Annotated[str, typer.Option(help="Time limit of the job.")] = "24:00:00",
    partition: Annotated[str, typer.Option(help="Partition of the cluster.")] = "",
    account: Annotated[str, typer.Option(help="Account to charge.")] = "",
    option: Annotated[
        list[str] | None, typer.Option(help="Any other line of #SBATCH: --option=--qos=high.")
    ] = None,
    setup: Annotated[
        list[str] | None, typer.Option(help="Shell line to run first: --setup 'module load cuda'.")
    ] = None,
    max_restarts: RestartsOption = 3,
    run: RunOption = None,
    set_: SetOption = None,
    accept_changes: AcceptOption = False,
    dry_run: DryRunOption = False,
    out: OutOption = None,
) -> None:
    """Submit a job: one task per GPU, requeued when it was told to stop, started again after a crash."""
    loaded, train = _train(recipe, run, set_, accept_changes)
    given = gpus_per_node or ranks_per_node
    per_node = _per_node(loaded, nodes, given, "--gpus-per-node" if gpus_per_node else "--ranks-per-node")
    options = [
        f"--job-name={loaded.name}",
        f"--nodes={nodes}",
        f"--ntasks-per-node={per_node or 1}",
        *([f"--gpus-per-node={gpus_per_node}"] if gpus_per_node else []),
        *([f"--cpus-per-task={cpus_per_task}"] if cpus_per_task else []),
        f"--time={time}",
        *([f"--partition={partition}"] if partition else []),
        *([f"--account={account}"] if account else []),
        "--signal=TERM@180",
        "--requeue",
        "--open-mode=append",
        f"--output={loaded.name}-%j.log",
        *(option or []),
    ]
    script = SCRIPT.format(
        options="\n".join(f"#SBATCH {text}" for text in options),
        setup="".join(f"{line}\n" for line in setup or []),
        bind=" --gpu-bind=none" if gpus_per_node else "",
        restarts=max_restarts,
        command=shlex.join(["python", "-m", "growlm", *train]),
    )
    if _shown(script, dry_run, out):
        return
    program = _program("sbatch", os.environ.get("PATH", ""), "run this on a login node of the cluster")
    sys.exit(subprocess.run([program], input=script, text=True, check=False).returncode)


SCRIPT = """\
#!/bin/bash
{options}

# Exit 75 is "saved, the same command continues": the job goes back into the queue. A crash is started again
# here, from the last checkpoint. Every other code is for a person to read, and ends the job.

trap 'echo "asked to stop"' TERM  # the steps get the signal as well; wait for them
{setup}
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-${{SLURM_CPUS_PER_TASK:-1}}}}"
export NCCL_DEBUG="${{NCCL_DEBUG:-WARN}}"
export PYTHONUNBUFFERED=1
if [ -n "$SLURM_CPUS_PER_TASK" ]; then
    export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
fi

crashes=0
attempt=0
while true; do
    export MASTER_PORT=$((20000 + (SLURM_JOB_ID + attempt) % 10000))
    began=$SECONDS
    # shellcheck disable=SC2016  # the variables are those of each task
    srun --kill-on-bad-exit=1{bind} bash -c \\
        'export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
         export LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE
         exec "$@"' growlm \\
        {command}
    code=$?
    case $code in
        75)
            echo "saved; back into the queue"
            scontrol requeue "$SLURM_JOB_ID" || exit 75
            exit 0
            ;;
        1 | 134 | 135 | 136 | 137 | 138 | 139 | 143)
            if [ $((SECONDS - began)) -gt 3600 ]; then
                crashes=0
            fi
            crashes=$((crashes + 1))
            attempt=$((attempt + 1))
            if [ "$crashes" -gt {restarts} ]; then
                echo "crashed with exit $code, {restarts} restarts are used up"
                exit "$code"
            fi
            echo "crashed with exit $code; restart $crashes of {restarts}"
            ;;
        *)
            exit "$code"
            ;;
    esac
done
"""
"""The batch script. Its fields are lines of #SBATCH, shell lines, words of srun, a number and a command."""


def _train(
    recipe: Path, run: Path | None, set_: list[str] | None, accept_changes: bool
) -> tuple[Recipe, list[str]]:
    """The recipe, which is checked before anything waits in a queue, and the words of `growlm train`."""
    from growlm.recipe.load import load_recipe

    loaded = load_recipe(recipe, set_ or [])
    words = ["train", str(recipe)]
    words += ["--run", str(run)] if run else []
    words += [word for text in set_ or [] for word in ("--set", text)]
    words += ["--accept-changes"] if accept_changes else []
    return loaded, words


def _per_node(recipe: Recipe, nodes: int, given: int | None, flag: str) -> int | None:
    """Ranks on a machine, from the flag or else from the recipe. Raises RecipeError if they do not fit it."""
    from growlm.plan.auto import check_ranks, ranks_of

    if given is not None:
        check_ranks(recipe, nodes * given)
        return given
    ranks = ranks_of(recipe)
    if ranks is None:
        return None
    if ranks % nodes:
        raise RecipeError(
            f"the recipe is laid out for {ranks} ranks, which {nodes} machines cannot share equally",
            where="--nodes",
            fix=f"change --nodes, or say how many a machine has: {flag}",
        )
    return ranks // nodes


def _shown(text: str, dry_run: bool, out: Path | None) -> bool:
    """Print or write what would be done, if that was asked for."""
    if out:
        out.write_text(text, encoding="utf-8")
        typer.echo(f"written: {out}", err=True)
    elif dry_run:
        typer.echo(text, nl=False)
    return dry_run or out is not None


def _program(name: str, path: str, fix: str) -> str:
    """Where a program is. Raises RecipeError."""
    found = shutil.which(name, path=path)
    if found is None:
        raise RecipeError(f"{name} is not on this machine", fix=f"{fix}, or see what to do with --dry-run")
    return found
