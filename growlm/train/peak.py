"""The matmul ceiling of a device: what MFU is measured against."""

from __future__ import annotations

import time

import torch


def matmul_peak_tflops(
    device: torch.device | str, dtype: torch.dtype, seconds: float = 0.3, size: int | None = None
) -> float:
    """Best TFLOP/s of a square matmul of `dtype` on `device`, probed for about `seconds`.

    Multiplies (size, size) by (size, size), 2 size^3 FLOPs each. The best of the probe is taken, not the
    mean: a ceiling is what the machine can do, and other load only ever lowers it.
    """
    device = torch.device(device)
    size = size or (8192 if device.type == "cuda" else 1024)
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    repeats = 8 if device.type == "cuda" else 1
    best, end = float("inf"), time.perf_counter() + seconds
    with torch.inference_mode():
        _timed(a, b, 1)  # warm-up: kernels, threads
        while True:
            best = min(best, _timed(a, b, repeats))
            if time.perf_counter() >= end:
                return 2 * size**3 / best / 1e12


def _timed(a: torch.Tensor, b: torch.Tensor, repeats: int) -> float:
    """Seconds of one matmul, over `repeats` of them issued at once."""
    start = time.perf_counter()
    for _ in range(repeats):
        torch.matmul(a, b)
    if a.device.type == "cuda":
        torch.cuda.synchronize(a.device)
    return (time.perf_counter() - start) / repeats
