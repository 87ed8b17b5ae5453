"""An allocator setting that is worth a quarter to a half of the speed on CPU, most in training. No torch."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def use_tuned_malloc() -> None:
    """Restart this process once so that glibc keeps its memory. Call before importing torch.

    By default glibc gives every large buffer back to the system at each step, and page faults eat the
    time; huge pages are worth another tenth (benchmarks/cpu_train.py). Only the environment of a new
    process can change it.
    """
    if sys.platform == "linux" and not any(name in os.environ for name in SETTINGS):
        os.environ.update(SETTINGS)
        with suppress(OSError):  # slower, but not a reason not to train
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
