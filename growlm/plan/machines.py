"""What a GPU can do, uses and costs, and what a grid emits: machines.toml, or a user's table. No torch."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, ValidationError

from growlm.errors import RecipeError

DEFAULTS = Path(__file__).with_name("machines.toml")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One kind of device. Bytes, FLOP/s and bytes per second are of one; `per_node` share a machine.

    `peak_flops` is dense bf16; `efficiency` the share of it that large kernels reach. `price_per_hour` is
    None where the table has none.
    """

    name: str
    peak_flops: float
    memory_bytes: int
    memory_bytes_per_second: float
    price_per_hour: float | None
    watts: float
    intra_bytes_per_second: float
    inter_bytes_per_second: float
    per_node: int
    efficiency: float = 0.55


@dataclass(frozen=True, kw_only=True)
class Machines:
    """The table: devices by key, prices of a day, grids in g CO2e per kWh, and the PUE of the building."""

    gpus: dict[str, Gpu]
    prices_as_of: str
    currency: str
    grids: dict[str, float]
    grid: str
    pue: float

    def gpu(self, key: str) -> Gpu:
        """The device of that key, in any case. Raises RecipeError."""
        if key.lower() not in self.gpus:
            raise RecipeError(
                f"no GPU is called {key!r}",
                where="--gpus",
                why=f"there are: {', '.join(sorted(self.gpus))}",
                fix="name one of them, or describe yours in a file: --machines FILE",
            )
        return self.gpus[key.lower()]

    def of_device(self, name: str) -> Gpu | None:
        """The device that torch, or the system, calls `name`: "NVIDIA A100-SXM4-80GB"; None if none is like
        it."""
        written = name.lower().replace(" ", "")
        keys = [key for key in self.gpus if key in written]
        return self.gpus[max(keys, key=len)] if keys else None

    def intensity(self, grid: str | None = None) -> float:
        """g CO2e per kWh of a grid, in any case; of the table's own without a name. Raises RecipeError."""
        found = {name.lower(): grams for name, grams in self.grids.items()}
        name = grid or self.grid
        if name.lower() not in found:
            raise RecipeError(
                f"no grid is called {name!r}",
                where="--grid",
                why=f"there are: {', '.join(sorted(self.grids))}",
                fix="name one of them, or add yours to a file: --machines FILE",
            )
        return found[name.lower()]


class _GpuTable(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    name: str
    peak_tflops: float = Field(gt=0)
    efficiency: float = Field(gt=0, le=1)
    memory_gib: float = Field(gt=0)
    memory_gb_per_second: float = Field(gt=0)
    price_per_hour: float | None = Field(None, ge=0)
    watts: float = Field(gt=0)
    intra_gb_per_second: float = Field(gt=0)
    inter_gb_per_second: float = Field(gt=0)
    per_node: int = Field(gt=0)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    prices_as_of: date | str
    currency: str
    pue: float = Field(ge=1)
    grid: str
    grids: dict[str, NonNegativeFloat]
    gpus: dict[str, _GpuTable]


def parse_gpus(text: str, machines: Machines) -> tuple[int | None, Gpu]:
    """The number and the kind of `4xh100`; of `h100` the number is None. Raises RecipeError."""
    match = re.fullmatch(r"(?:(\d+)\s*[xX*]\s*)?([A-Za-z][\w.-]*)", text.strip())
    if match is None or match[1] == "0" * len(match[1] or "-"):
        raise RecipeError(
            f"{text!r} is not a number of GPUs",
            where="--gpus",
            why="it is, e.g., 4xh100",
            fix="--gpus 4xh100",
        )
    return (int(match[1]) if match[1] else None), machines.gpu(match[2])


def load_machines(path: Path | None = None) -> Machines:
    """The table of GrowLM, with what the file `path` says in its place, key by key. Raises RecipeError."""
    raw = tomllib.loads(DEFAULTS.read_text(encoding="utf-8"))
    if path is not None:
        raw = _laid_over(raw, _read(path))
    try:
        table = _File.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(
            "the table of machines is not as it must be",
            where=f"{path or DEFAULTS}: {'.'.join(map(str, first['loc']))}",
            why=first["msg"],
            fix=f"compare with {DEFAULTS}",
        ) from error
    machines = Machines(
        gpus={key.lower(): _gpu(gpu) for key, gpu in table.gpus.items()},
        prices_as_of=str(table.prices_as_of),
        currency=table.currency,
        grids=table.grids,
        grid=table.grid,
        pue=table.pue,
    )
    machines.intensity()
    return machines


def _gpu(table: _GpuTable) -> Gpu:
    return Gpu(
        name=table.name,
        peak_flops=table.peak_tflops * 1e12,
        memory_bytes=int(table.memory_gib * 2**30),
        memory_bytes_per_second=table.memory_gb_per_second * 1e9,
        price_per_hour=table.price_per_hour,
        watts=table.watts,
        intra_bytes_per_second=table.intra_gb_per_second * 1e9,
        inter_bytes_per_second=table.inter_gb_per_second * 1e9,
        per_node=table.per_node,
        efficiency=table.efficiency,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(
            "the table of machines cannot be read",
            where=str(path),
            why=str(error),
            fix="--machines FILE.toml",
        ) from error


def _laid_over(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over`, with tables merged into those of `base`."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _laid_over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
