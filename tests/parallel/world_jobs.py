"""What test_world.py runs in the shared ranks."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import torch.distributed as dist

from growlm import errors
from growlm.errors import DataError, GrowLMError
from growlm.parallel.world import join


def place() -> dict[str, Any]:
    with join("cpu") as world:
        device, group = str(world.device), dist.is_initialized()
        return {"rank": world.rank, "size": world.size, "main": world.main, "device": device, "group": group}


def agree(values: list[Any]) -> list[Any]:
    """What this rank learns of the others, by every collective of the world."""
    with join("cpu") as world:
        told = world.exchange(values[world.rank])
        world.barrier()
        return [told, world.control(world.rank == world.size - 1, False, world.main)]


def fail(kind: str, ranks: list[int]) -> dict[str, Any]:
    """The error that this rank raises when these ranks raise one inside `together`, as a dict."""
    try:
        with join("cpu") as world:
            with world.together():
                if world.rank in ranks:
                    if kind == "ValueError":
                        raise ValueError("broken")
                    raise getattr(errors, kind)("broken", where=f"file {kind}", fix="mend it")
            world.barrier()
    except GrowLMError as error:
        return {"kind": type(error).__name__, "code": error.exit_code, "text": str(error)}
    except ValueError as error:
        return {"kind": "ValueError", "code": 1, "text": str(error)}
    return {"kind": ""}


def same(facts: list[dict[str, str]]) -> dict[str, Any]:
    try:
        with join("cpu") as world:
            world.same(facts[world.rank])
    except GrowLMError as error:
        return {"kind": type(error).__name__, "code": error.exit_code, "text": str(error)}
    return {"kind": ""}


def leave(seconds: list[float]) -> None:
    """A last collective, after which each rank takes its own time to leave."""
    with join("cpu") as world:
        world.control(True)
        time.sleep(seconds[world.rank])


def raise_in_one(rank: int) -> None:
    with join("cpu") as world:
        if world.rank == rank:
            raise DataError("not what it was")
        world.barrier()


def die(rank: int) -> None:
    with join("cpu") as world:
        if world.rank == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        world.barrier()


def sleep(rank: int) -> None:
    with join("cpu") as world:
        if world.rank == rank:
            time.sleep(600)
        world.barrier()


def environment(name: str) -> str | None:
    return os.environ.get(name)
