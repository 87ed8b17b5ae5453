"""Executors for a cluster, through datatrove: Slurm (extra `cluster`) and Ray (extra `ray`).

The tasks are GrowLM's own; datatrove starts them, once per phase, and every one writes its result into the
work folder, which all machines must share. This process waits for the results. datatrove itself hands its
jobs to the machines as pickles, in the folder `logs` of the work folder; GrowLM reads none.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from growlm.data.extra import extra
from growlm.data.pipeline.local import InProcess, error_from, error_to
from growlm.data.pipeline.tasks import Advance, run_task
from growlm.data.pipeline.work import Work, write_whole
from growlm.errors import GrowLMError, RecipeError

MakeExecutor = Callable[..., Any]
"""A datatrove executor from the keyword arguments `pipeline`, `tasks` and `logging_dir`."""
_POLL_SECONDS = 2.0
_JOBS_PER_WORKER, _WORKERS = 4, 16
_GRACE_SECONDS = 60.0  # for results to be seen through a network file system, after the last job has ended


class Cluster:
    """Runs each phase as one job of a datatrove executor."""

    def __init__(self, make: MakeExecutor, *, is_running: Callable[[Any], bool]) -> None:
        """`is_running` says of an executor whose `run` has returned whether it still has jobs."""
        self._make, self._is_running = make, is_running

    def run(self, work: Work, phase: str, numbers: list[int], advance: Advance) -> None:
        """See `Executor`. A single task is run here."""
        if len(numbers) == 1:
            InProcess().run(work, phase, numbers, advance)
            return
        logs = work.folder / "logs" / f"{phase}-{time.time_ns()}"
        step = partial(run_rank, str(work.folder.absolute()), phase, numbers)
        executor = self._make(pipeline=[step], tasks=len(numbers), logging_dir=str(logs.absolute()))
        for number in numbers:
            _error_file(work, phase, number).unlink(missing_ok=True)
        try:
            executor.run()
        except Exception as error:
            _raise_first(work, phase, numbers)
            raise _failed(phase, logs, str(error)) from error
        self._wait(work, phase, numbers, executor, logs)

    def close(self) -> None:
        """See `Executor`."""

    def _wait(self, work: Work, phase: str, numbers: list[int], executor: Any, logs: Path) -> None:
        """Return when every task is done. Raises what a task has raised, or that some never ended."""
        last_seen = time.monotonic()
        while missing := [number for number in numbers if not work.done(phase, number)]:
            _raise_first(work, phase, missing)
            if self._is_running(executor):
                last_seen = time.monotonic()
            elif time.monotonic() - last_seen > _GRACE_SECONDS:
                raise _failed(phase, logs, f"{len(missing)} of its {len(numbers)} tasks have no result")
            time.sleep(_POLL_SECONDS)


def slurm(options: Mapping[str, str], workers: int | None) -> Cluster:
    """Slurm; `options` are those of datatrove's `SlurmPipelineExecutor`, `time` and `partition` at least.

    Raises RecipeError: an option it does not have.
    """
    module = extra("datatrove.executor.slurm", "--executor slurm", "cluster")
    made = _options(module.SlurmPipelineExecutor, options, ("time", "partition"))
    if workers is not None:
        made["workers"] = workers
    return Cluster(_in_jobs(module.SlurmPipelineExecutor, made, workers), is_running=_in_queue)


def ray(options: Mapping[str, str], workers: int | None) -> Cluster:
    """The Ray cluster of `RAY_ADDRESS`, else one on this machine; `options` as for `slurm`."""
    module = extra("datatrove.executor.ray", "--executor ray", "ray")
    library = extra("ray", "--executor ray", "ray")
    made = _options(module.RayPipelineExecutor, options, ())
    if workers is not None:
        made["workers"] = workers
    if not library.is_initialized():
        library.init()
    return Cluster(_in_jobs(module.RayPipelineExecutor, made, workers), is_running=lambda _: False)


def run_rank(folder: str, phase: str, numbers: list[int], _data: object, rank: int, _world: int) -> None:
    """What datatrove calls on some machine: run task `numbers[rank]`; its error is left in a file."""
    work = Work(Path(folder))
    try:
        run_task(work, phase, numbers[rank], lambda _: None)
    except Exception as error:
        path = _error_file(work, phase, numbers[rank])
        path.parent.mkdir(exist_ok=True)
        write_whole(path, json.dumps(error_to(error)).encode())
        raise


def _options(executor: type, given: Mapping[str, str], required: tuple[str, ...]) -> dict[str, str | int]:
    known = inspect.signature(executor).parameters.keys() - {"pipeline", "tasks", "logging_dir"}
    for name in required:
        if name not in given:
            raise RecipeError(
                f"The cluster's {name} is not known", where="--cluster", fix=f"--cluster {name}=..."
            )
    for name in given:
        if name not in known:
            raise RecipeError(
                f"datatrove's {executor.__name__} has no option {name!r}",
                where="--cluster",
                why=f"it has {', '.join(sorted(known))}",
            )
    return {name: int(value) if value.isdecimal() else value for name, value in given.items()}


def _in_jobs(executor: Callable[..., Any], options: Mapping[str, Any], workers: int | None) -> MakeExecutor:
    """Many short tasks make few jobs, whose start takes seconds; yet some for each worker, to even out."""

    def make(*, tasks: int, **more: Any) -> Any:
        per_job = -(-tasks // (_JOBS_PER_WORKER * (workers or _WORKERS)))
        return executor(tasks=tasks, **{"tasks_per_job": per_job} | dict(options) | more)

    return make


def _in_queue(executor: Any) -> bool:
    """Whether Slurm still knows the last job of an executor as waiting or running."""
    if executor.job_id in (None, -1):
        return False
    command = ["squeue", "--noheader", "--jobs", str(executor.job_id)]
    listed = subprocess.run(command, capture_output=True, text=True)
    return listed.returncode == 0 and bool(listed.stdout.strip())


def _error_file(work: Work, phase: str, number: int) -> Path:
    return work.folder / "errors" / f"{phase}-{number:06d}.json"


def _raise_first(work: Work, phase: str, numbers: list[int]) -> None:
    """Raise the error that the first of the tasks with one has left."""
    for number in numbers:
        path = _error_file(work, phase, number)
        if path.exists():
            raise error_from(json.loads(path.read_bytes()))


def _failed(phase: str, logs: Path, why: str) -> GrowLMError:
    return GrowLMError(
        f"The phase `{phase}` failed on the cluster",
        where=str(logs),
        why=why[:300],
        fix="see the logs there; the same command goes on with the tasks that are missing",
    )
