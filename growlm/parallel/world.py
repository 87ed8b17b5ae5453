"""The processes of a run as one world: who they are, how they agree, how one failure becomes everyone's.

A launcher (torchrun, `growlm launch slurm`) names each process by RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR
and MASTER_PORT. Without them, or with one process, no process group is made and everything here costs
nothing. What the ranks tell one another about the run goes through the CPU (gloo) as JSON, so that the
device is never waited for and nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import Store, _set_pg_timeout
from torch.distributed.rendezvous import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from growlm import errors
from growlm.errors import Elsewhere, GrowLMError, RankError, RecipeError

NEVER = timedelta(days=365)
"""Timeout of the collectives: the watchdog decides what hangs, and it knows the phase."""

LEAVE_SECONDS = 10
E = TypeVar("E", bound=Exception)
_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass
class World:
    """One process among `size`. Every method but `main` is a collective: all ranks call it, in one order."""

    rank: int
    size: int
    local_rank: int
    device: torch.device
    parent: int = field(default_factory=os.getppid)
    """The process that started this one."""

    @classmethod
    def alone(cls, device: torch.device) -> World:
        """A world of one process."""
        return cls(0, 1, 0, device)

    @property
    def orphaned(self) -> bool:
        """Whether the launcher that started this rank is gone, and with it whoever would end it."""
        return self.size > 1 and os.getppid() != self.parent

    @property
    def main(self) -> bool:
        """Whether this is rank 0, which speaks and writes for all."""
        return self.rank == 0

    def exchange(self, value: Any) -> list[Any]:
        """The JSON values of all ranks in rank order."""
        if self.size == 1:
            return [value]
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [torch.zeros((), dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor(len(text)))
        longest = int(max(lengths))
        texts = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(texts, torch.nn.functional.pad(text, (0, longest - len(text))))
        return [
            json.loads(text[:length].numpy().tobytes())
            for text, length in zip(texts, map(int, lengths), strict=True)
        ]

    def control(self, *flags: bool) -> tuple[bool, ...]:
        """Whether any rank raised each flag: one small all-reduce."""
        if self.size == 1:
            return tuple(map(bool, flags))
        raised = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return tuple(map(bool, raised.tolist()))

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.control(False)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise on all ranks what any rank raises inside; the block itself must hold no collective.

        Rank 0 raises the error of the lowest rank that failed and says which that is, the other ranks
        raise Elsewhere with the same exit code.
        """
        if self.size == 1:
            yield
            return
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        told = self.exchange(failure and _describe(failure))
        failed = [rank for rank, error in enumerate(told) if error]
        if failed:
            everywhere = all(error == told[0] for error in told)
            self._end(failure, told[failed[0]], "" if everywhere else f"rank {failed[0]}")

    def same(self, what: Mapping[str, str]) -> None:
        """Refuse, on all ranks, to go on with a rank that has another recipe, data, version, ...

        Raises:
            RecipeError: on rank 0, naming the ranks, what differs and both values.
            Elsewhere: on the others.
        """
        values = self.exchange(dict(what))
        differs = [
            f"{_ranks(ranks)} has {name} {other}, rank 0 has {values[0].get(name)}"
            for name in sorted({name for v in values for name in v})
            for other, ranks in _other_values([v.get(name) for v in values]).items()
        ]
        if differs:
            error = RecipeError(
                "the ranks do not agree: " + "; ".join(differs),
                why="they would compute parts of different runs",
                fix="give every node the same files, the same GrowLM and the same torch",
            )
            self._end(None, _describe(error), "")

    def common(self, error: GrowLMError) -> GrowLMError:
        """What this rank raises where all ranks end in the same error: rank 0 has the word."""
        return _agreed(error if self.main else Elsewhere(error.exit_code))

    def _end(self, own: Exception | None, told: dict[str, Any], rank: str) -> NoReturn:
        """Raise one error on all ranks: as it is where rank 0 itself failed, else as it was told."""
        if not self.main:
            raise _agreed(Elsewhere(told["exit_code"])) from own
        if own is not None and rank in ("", "rank 0"):
            raise _agreed(own)
        raise _agreed(_told(told, rank)) from None


@contextmanager
def join(device: Literal["auto", "cpu", "cuda"], timeout: float = 1800.0) -> Iterator[World]:
    """Meet the other ranks that the launcher started, for as long as the context lasts.

    `timeout` is how long to wait for them, in seconds.

    Raises:
        RecipeError: the launcher's variables are incomplete or make no sense, or there is no such device.
        RankError: the port is taken, or not every rank came in time.
    """
    rank, size, local_rank = _place(os.environ)
    where = _device(device, local_rank)
    world = World(rank, size, local_rank, where)
    if size == 1:
        yield world
        return
    store = _meet(rank, size, timeout)
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=timeout),
            device_id=where if where.type == "cuda" else None,
        )
    except RuntimeError as error:  # of gloo; those of the store are RuntimeErrors as well
        raise _not_met(rank, str(error)) from error
    _set_pg_timeout(NEVER)
    in_step = False
    try:
        yield world
        in_step = True
    except Exception as error:
        in_step = getattr(error, "agreed", False)
        if not isinstance(error, RuntimeError) or not _is_broken_group(error):
            raise
        raise RankError(
            f"rank {rank} lost another rank and cannot go on without it",
            why=_root(error),
            fix="look at what that rank said; the same command goes on from the last checkpoint",
        ) from error
    finally:
        _leave(store, world, in_step)


def _is_broken_group(error: BaseException | None) -> bool:
    """Whether a collective failed because a peer is gone; gloo says so by its name only.

    The pipeline wraps what it meets in an error of its own.
    """
    while error is not None:
        if isinstance(error, dist.DistError) or "gloo/" in str(error):
            return True
        error = error.__cause__
    return False


def _root(error: BaseException) -> str:
    """The first line of what an error comes from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0]


def _leave(store: Store, world: World, in_step: bool) -> None:
    """Take the process group down; if all ranks come here, only once all have.

    Whoever leaves a gloo group while a peer is still in its last collective breaks it for the peer, and a
    barrier is itself such a collective: so the ranks count themselves in the store.
    """
    if in_step:
        with suppress(dist.DistError):  # rank 0 may take the store away once it has seen everyone
            if store.add("left", 1) == world.size:
                store.set("all left", "1")
            store.wait(["all left"], timedelta(seconds=LEAVE_SECONDS))
    if in_step or world.device.type == "cpu":  # NCCL would wait for a dead peer
        dist.destroy_process_group()


def _place(env: Mapping[str, str]) -> tuple[int, int, int]:
    """(rank, world size, local rank) as the launcher says. Raises RecipeError."""
    if not any(env.get(name) for name in _NAMES[:3]):
        return 0, 1, 0
    missing = [name for name in _NAMES if not env.get(name)]
    alone = env.get("WORLD_SIZE") == "1"
    if missing and not (alone and set(missing) <= set(_NAMES[3:])):
        raise _bad_environment(f"{', '.join(missing)} not set, {_given(env)}")
    try:
        rank, size, local_rank = (int(env[name]) for name in _NAMES[:3])
        port = int(env.get("MASTER_PORT") or 1)
    except ValueError:
        raise _bad_environment(f"not whole numbers: {_given(env)}") from None
    if not (0 <= rank < size and 0 <= local_rank <= rank and 0 < port < 1 << 16):
        raise _bad_environment(f"these do not fit together: {_given(env)}")
    return rank, size, local_rank


def _given(env: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={env[name]}" for name in _NAMES if env.get(name))


def _bad_environment(why: str) -> RecipeError:
    return RecipeError(
        "the environment names a rank, but not completely or not sensibly",
        where="environment",
        why=why,
        fix=f"start with torchrun or growlm launch, or unset {' '.join(_NAMES[:3])} to train alone",
    )


def _device(wanted: Literal["auto", "cpu", "cuda"], local_rank: int) -> torch.device:
    """This rank's own device. Raises RecipeError if there is none."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RecipeError(
            "no CUDA device is visible to torch",
            where="train.device",
            fix='write train.device = "auto" or "cpu", or install a CUDA build of torch',
        )
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise RecipeError(
            f"local rank {local_rank} has no CUDA device: this node shows {count}",
            where=socket.gethostname(),
            why="every rank needs a device of its own",
            fix=f"start at most {count} ranks on a node (--nproc), or look at CUDA_VISIBLE_DEVICES",
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def _meet(rank: int, size: int, timeout: float) -> Store:
    """The key-value store that all ranks share, once all are there. Raises RankError."""
    deadline = time.monotonic() + timeout
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            port = _fresh_port(TCPStore(address, port, timeout=timedelta(seconds=timeout)), rank, deadline)
        elif rank > 0:
            _wait_for_port(lambda: port, deadline)
        left = timedelta(seconds=max(1.0, deadline - time.monotonic()))
        return TCPStore(address, port, size, is_master=rank == 0, timeout=left)
    except TimeoutError as error:
        raise _not_met(rank, str(error), f"rank {rank} did not find rank 0 within {timeout:.0f} s") from None
    except dist.DistError as error:
        why = str(error).splitlines()[0]
    if "EADDRINUSE" in why:
        raise RankError(
            "the port where the ranks meet is taken",
            where=f"{address}:{port}",
            why="another program, or another run, listens there",
            fix=f"set MASTER_PORT to another port (torchrun --master-port), such as {_free_port()}",
        )
    joined = next((w.partition("/")[0] for w in why.split() if w.endswith(f"/{size}")), "")
    raise _not_met(rank, why, f"only {joined} of {size} ranks came within {timeout:.0f} s" if joined else "")


def _not_met(rank: int, why: str, what: str = "") -> RankError:
    return RankError(
        what or f"rank {rank} lost the other ranks before the start",
        where=f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}",
        why=why.splitlines()[0],
        fix="look at the output of the other ranks; a slow start needs a longer timeouts.setup",
    )


def _fresh_port(board: Store, rank: int, deadline: float) -> int:
    """Where rank 0 of this start listens. Raises TimeoutError.

    torchrun keeps its own store when it starts the ranks again, with all that dead ranks wrote there; so it
    only says where to meet. An address that a dead rank 0 left behind answers nobody.
    """
    if rank == 0:
        port = _free_port()
        board.set("growlm port", str(port))
        return port
    return _wait_for_port(lambda: int(board.get("growlm port")), deadline)


def _wait_for_port(port: Callable[[], int], deadline: float) -> int:
    """The port, once rank 0 listens; torch would fill the terminal with its attempts. Raises TimeoutError."""
    why = ""
    while time.monotonic() < deadline:
        try:
            found = port()
            socket.create_connection((os.environ["MASTER_ADDR"], found), timeout=5).close()
            return found
        except OSError as error:
            why = error.strerror or str(error)
        time.sleep(0.05)
    raise TimeoutError(why or "nobody answers")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _agreed(error: E) -> E:
    """The same error, marked as one that all ranks raise here."""
    error.agreed = True  # type: ignore[attr-defined]  # of an error that is not GrowLM's
    return error


def _describe(error: Exception) -> dict[str, Any]:
    """An error as JSON: its nearest class of growlm.errors, and its four parts."""
    if not isinstance(error, GrowLMError):
        what = f"unexpected {type(error).__name__}: {error}"
        error = GrowLMError(what, fix="run again with `growlm --debug ...`")
    kind = next(c.__name__ for c in type(error).__mro__ if getattr(errors, c.__name__, None) is c)
    parts = {name: getattr(error, name) for name in ("what", "where", "why", "fix")}
    return {"kind": kind, "exit_code": error.exit_code, "parts": parts}


def _told(told: dict[str, Any], rank: str) -> GrowLMError:
    """The error that another rank described, with that rank in its `where`."""
    parts = dict(told["parts"])
    where = ", ".join(filter(None, (rank, parts.pop("where"))))
    return getattr(errors, told["kind"])(parts.pop("what"), where=where, **parts)


def _other_values(values: list[str | None]) -> dict[str | None, list[int]]:
    """The ranks by their value, where it is not rank 0's."""
    others: dict[str | None, list[int]] = {}
    for rank, value in enumerate(values):
        if value != values[0]:
            others.setdefault(value, []).append(rank)
    return others


def _ranks(ranks: list[int]) -> str:
    """`rank 3`, or the first of many."""
    shown = ", ".join(map(str, ranks[:4]))
    return f"rank {shown}" if len(ranks) == 1 else f"each of ranks {shown}" + (", ..." if ranks[4:] else "")
