"""Where the tasks of a preparation run, by the options of a command."""

from __future__ import annotations

import os
from collections.abc import Mapping

from growlm.data.pipeline.cluster import ray, slurm
from growlm.data.pipeline.local import InProcess, Processes
from growlm.data.pipeline.plan import Plan, bytes_of
from growlm.data.pipeline.tasks import Executor
from growlm.errors import RecipeError

_SMALL = 16 << 20
"""Input of fewer bytes is prepared in one process: starting others would take longer."""


def executor_of(name: str, workers: int | None, options: Mapping[str, str]) -> Executor | None:
    """The executor of this name; None for a local one, which depends on the input (`local`).

    Raises RecipeError: no such executor, or options it does not have.
    """
    if name == "slurm":
        return slurm(options, workers)
    if name == "ray":
        return ray(options, workers)
    if name != "local":
        raise RecipeError(
            f"There is no executor {name!r}", where="--executor", fix="--executor local, slurm or ray"
        )
    if options:
        raise RecipeError("There is no cluster", where="--cluster", fix="--executor slurm, or ray")
    return None


def local(plan: Plan, workers: int | None) -> Executor:
    """As many processes as `workers`, or as there are cores; this one only where the input is small."""
    if workers is None:
        workers = 1 if bytes_of(plan.sources) < _SMALL else _cores()
    return InProcess() if workers == 1 else Processes(workers)


def _cores() -> int:
    """Cores that this process may use, where the system says it; else all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
