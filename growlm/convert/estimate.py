"""What a growth would write, from what, and what it takes: nothing is read and nothing stays on the disk."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from growlm.checkpoint.disk import disk_errors
from growlm.checkpoint.format import TensorWriter
from growlm.growth.apply import grow_rows
from growlm.growth.choose import affordable, full_bytes
from growlm.growth.chunks import one_thread
from growlm.growth.depth import FRESH
from growlm.growth.maps import AxisMap
from growlm.growth.operators import Growth
from growlm.model.parameters import Parameter, n_parameters, parameter_table

OVERHEAD = 500_000_000  # bytes: Python, torch and the chunks on their way
PROBE_BYTES = 16 << 20
STATE_BYTES = 8  # per parameter: two fp32 moments

Json = dict[str, Any]


def dry_run(growth: Growth, *, dtype: torch.dtype, with_state: bool, rate: float) -> Json:
    """Every grown tensor with its source and bytes; total bytes, memory in bytes, seconds at `rate` bytes/s.

    `dtype` is that of the weights; `with_state` adds two fp32 moments for each of them.
    """
    per_weight = dtype.itemsize + (STATE_BYTES if with_state else 0)
    changes = {axis: _change(mapping) for axis, mapping in growth.maps.items()}
    tensors = []
    for p in parameter_table(growth.new).values():
        source, how = _source(growth, p, changes)
        size = p.numel * per_weight
        tensors.append({"name": p.name, "shape": list(p.shape), "from": source, "how": how, "bytes": size})
    total = sum(t["bytes"] for t in tensors)
    largest = max(p.numel for p in parameter_table(growth.new).values()) * (
        4 if with_state else dtype.itemsize
    )
    kind = affordable(growth)
    return {
        **growth.plan(),
        "parameters": [n_parameters(growth.old), n_parameters(growth.new)],
        "exact": growth.exact,
        "bytes": total,
        "peak_memory": OVERHEAD + 2 * largest,
        "certificate": kind,
        "certificate_memory": OVERHEAD + _certificate_bytes(growth, kind),
        "rate": rate,
        "seconds": total / rate,
        "tensors": tensors,
    }


def measured_rate(growth: Growth, dtype: torch.dtype, folder: Path) -> float:
    """Bytes per second at which this growth writes a part of its largest matrix to a new file in `folder`."""
    table = [p for p in parameter_table(growth.new).values() if len(p.shape) == 2]
    parameter = max(table, key=lambda p: (p.role == "hidden", p.numel))
    row = dtype.itemsize * parameter.shape[1]
    rows = min(parameter.shape[0], max(1, PROBE_BYTES // row))
    step = max(1, (2 << 20) // row)
    width = parameter_table(growth.old)[growth.source_name(parameter)].shape[1]
    entry = (parameter.name, dtype, (rows, parameter.shape[1]))
    scratch = tempfile.TemporaryDirectory(prefix=".growlm-", dir=folder)
    with disk_errors(folder), scratch as path, one_thread():
        started = time.perf_counter()
        with TensorWriter(Path(path) / "probe", [entry]) as writer:
            for start in range(0, rows, step):
                stop = min(rows, start + step)
                read = lambda _, a, b: torch.ones(b - a, width, dtype=dtype)  # noqa: E731
                writer.write(grow_rows(growth, parameter, "weight", start, stop, read))
        return rows * row / (time.perf_counter() - started)


def _source(growth: Growth, parameter: Parameter, changes: Mapping[str, str]) -> tuple[str | None, str]:
    """The old tensor that a new one is made from, if any, and how."""
    layer = None if parameter.layer is None else growth.layers[parameter.layer]
    if layer is not None and (
        layer.start == "identity" or (layer.start == "zero" and parameter.writes_residual)
    ):
        return None, layer.start
    if layer is not None and layer.source == FRESH:
        return None, "fresh"
    ways = [f"{axis} {changes[axis]}" for axis in parameter.axes if changes[axis]]
    gate = ["behind a gate"] if layer is not None and layer.start == "gate" else []
    return growth.source_name(parameter), ", ".join(ways + gate) or "as it is"


def _change(mapping: AxisMap) -> str:
    """`64 + 32 copies + 16 new`; empty for an axis that stays."""
    if mapping.is_identity:
        return ""
    copies, new = int(mapping.is_copy.sum()), int(mapping.is_new.sum())
    parts = [f"{copies} copies"] * bool(copies) + [f"{new} new"] * bool(new)
    return " + ".join([str(len(mapping) - copies - new), *parts])


def _certificate_bytes(growth: Growth, kind: str) -> int:
    """What the weights take that a certificate holds at a time, in fp64: everything, two blocks, or a row."""
    if kind == "full":
        return full_bytes(growth)
    block = sum(p.numel for p in parameter_table(growth.new).values() if p.layer == 0)
    return 2 * 8 * block if kind == "streaming" else 0
