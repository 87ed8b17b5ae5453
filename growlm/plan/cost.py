"""What FLOPs cost: time, GPU-hours, money, energy, carbon. No torch.

seconds    = model FLOPs / (GPUs x peak x MFU x goodput)
GPU-hours  = GPUs x seconds / 3600
money      = GPU-hours x price
kWh        = GPU-hours x watts / 1000 x PUE
kg CO2e    = kWh x grams per kWh / 1000          (Patterson et al., 2104.10350)
"""

from __future__ import annotations

from dataclasses import dataclass

from growlm.plan.machines import Gpu, Machines

GOODPUT = 0.93
"""Useful share of the days of a run: FLM-101B's last stage was 154 TFLOP/s over its 6.54 days (72-formula),
and 165 in its benchmark (2309.03852, tables 1 and 2)."""


@dataclass(frozen=True)
class Cost:
    """Model FLOPs and what they cost; `money` is None without a price."""

    flops: float = 0.0
    seconds: float = 0.0
    gpu_hours: float = 0.0
    money: float | None = 0.0
    kwh: float = 0.0
    co2_kg: float = 0.0

    @property
    def days(self) -> float:
        """The time in days."""
        return self.seconds / 86400

    def __add__(self, other: Cost) -> Cost:
        """Both, one after the other."""
        return Cost(
            flops=self.flops + other.flops,
            seconds=self.seconds + other.seconds,
            gpu_hours=self.gpu_hours + other.gpu_hours,
            money=None if self.money is None or other.money is None else self.money + other.money,
            kwh=self.kwh + other.kwh,
            co2_kg=self.co2_kg + other.co2_kg,
        )


def cost_of(
    flops: float,
    gpu: Gpu,
    n_gpus: int,
    mfu: float,
    goodput: float,
    machines: Machines,
    *,
    price_per_hour: float | None = None,
    grid: str | None = None,
) -> Cost:
    """The cost of model FLOPs on `n_gpus`; `price_per_hour` is of one GPU, the table's if None."""
    return cost_of_seconds(
        flops,
        flops / (n_gpus * gpu.peak_flops * mfu * goodput),
        gpu,
        n_gpus,
        machines,
        price_per_hour=price_per_hour,
        grid=grid,
    )


def cost_of_seconds(
    flops: float,
    seconds: float,
    gpu: Gpu,
    n_gpus: int,
    machines: Machines,
    *,
    price_per_hour: float | None = None,
    grid: str | None = None,
) -> Cost:
    """The cost of `n_gpus` for so long."""
    hours = n_gpus * seconds / 3600
    price = gpu.price_per_hour if price_per_hour is None else price_per_hour
    kwh = hours * gpu.watts / 1000 * machines.pue
    return Cost(
        flops=flops,
        seconds=seconds,
        gpu_hours=hours,
        money=None if price is None else hours * price,
        kwh=kwh,
        co2_kg=kwh * machines.intensity(grid) / 1000,
    )
