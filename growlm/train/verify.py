"""Checkpoints verified by all ranks, each hashing its share of the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from growlm.checkpoint.manifest import MANIFEST, Manifest
from growlm.checkpoint.store import Checkpoint, CheckpointStore, damage_line
from growlm.parallel.world import World


def latest_valid(store: CheckpointStore, world: World, report: Callable[[str], None]) -> Checkpoint | None:
    """`CheckpointStore.latest_valid` by all ranks: rank 0 names the checkpoints, newest first.

    All ranks call it and get the same; `report` is called on rank 0 only. What rank 0 wrote or has verified
    is not hashed again.

    Raises:
        CheckpointError: there are checkpoints, and none is whole. On rank 0; Elsewhere on the others.
        DiskError: the folder cannot be read; as above.
    """
    named: list[tuple[str, bool]] = []
    with world.together():
        if world.main:
            named = [(entry.path.name, store.trusts(entry.path)) for entry in store.checkpoints()]
    damage = []
    for name, trusted in world.exchange(named)[0]:
        path = store.folder / name
        problems = problems_of(path, world, contents=not trusted)
        if not problems:
            store.trust(path)
            with world.together():
                return Checkpoint(path, Manifest.load(path / MANIFEST))
        damage.append(damage_line(path, problems))
        with world.together():
            if world.main:
                report(f"{damage[-1]}; trying the checkpoint before it")
    with world.together():
        if world.main:
            store.refuse_a_fresh_start(damage)
    return None


def problems_of(path: Path, world: World, *, contents: bool = True) -> list[str]:
    """`CheckpointStore.verify` by all ranks: what any of them found, on all of them."""
    found: list[str] = []
    with world.together():
        found = CheckpointStore.verify(path, world.rank, world.size, contents=contents)
    return list(dict.fromkeys(problem for share in world.exchange(found) for problem in share))
