"""How much memory this machine, or the control group around this process, has. No torch."""

from __future__ import annotations

import os
from pathlib import Path


def memory_bytes() -> tuple[int, int]:
    """Total and available bytes, within the control group's limit if there is one."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = total
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no cgroup v2 here, or "max"
        return total, free
    return min(total, limit), min(free, limit - used)
