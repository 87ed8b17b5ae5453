"""The MFU of a finished run, for plans of runs like it. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from growlm.errors import RecipeError
from growlm.plan.machines import Gpu, Machines


def measured_mfu(
    records: Sequence[dict[str, Any]], gpu: Gpu, stages: Sequence[str], machines: Machines
) -> tuple[float, ...]:
    """The MFU of each of the named stages, from the record of a run on devices like `gpu`.

    The median step of the stage of that name, or of the run's last stage. What a run records is a share of
    the matmul peak that it measured; this is the same FLOP/s as a share of the peak in the table.
    Raises RecipeError if there is nothing to read it from.
    """
    speeds, names, peak = {}, {}, 0.0
    for record in records:
        if record["kind"] == "start":
            peak = float(record.get("peak_tflops") or 0.0) * 1e12
            device = machines.of_device(str(record.get("device")))
            if device is not None and device != gpu:
                raise RecipeError(
                    f"the run was on {device.name}, the plan is for {gpu.name}",
                    where="--measured",
                    fix="name a run on the same kind of device, or write --mfu",
                )
        elif record["kind"] == "stage":
            names[record.get("stage")] = str(record.get("name"))
        elif record["kind"] == "step" and isinstance(record.get("mfu"), float):
            speeds.setdefault(record.get("stage"), []).append(record["mfu"] * peak)
    found = {names.get(stage, ""): median(values) / gpu.peak_flops for stage, values in speeds.items()}
    if not found or not all(0 < mfu <= 1 for mfu in found.values()):
        raise RecipeError(
            "the run has no MFU that fits this GPU",
            where="--measured",
            why=f"of the peak of {gpu.name}: {found}" if found else "its record has no step",
            fix="name a run on the same kind of device, or write --mfu",
        )
    last = list(found.values())[-1]
    return tuple(found.get(name, last) for name in stages)
