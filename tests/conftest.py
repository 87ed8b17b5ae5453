import os
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MALLOC_TOP_PAD_", "131072")  # as by itself; if set no command restarts
# torch's store looks up the names of those who connect; an answer that is lost costs 1 s, not 5
os.environ.setdefault("RES_OPTIONS", "timeout:1 attempts:1")

import pytest
import torch

from growlm.testing.ranks import Ranks

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    """Four ranks, forked once, that every distributed test shares."""
    heavy = ("torch.distributed.fsdp", "torch.distributed.pipelining", "growlm.parallel.world")
    with Ranks(4, preload=heavy) as ranks:
        yield ranks


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests share fixtures, and those of all files that want ranks share these: one process each."""
    for item in items:
        wants_ranks = "ranks" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("ranks" if wants_ranks else str(item.path)))
