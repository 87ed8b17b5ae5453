"""Resumed == straight, bit for bit: killed at every point that could matter, with growth on the way."""

from collections.abc import Callable
from pathlib import Path

import pytest

from growlm.train.supervisor import run
from tests.train.conftest import MakeRecipe
from tests.train.helpers import Outcome, killed, messages, outcome, records, steps

# The stages have 7, 8, 6 and 8 steps; saves after every third step of a stage and at its end.
# A save is committed when the next one begins, or at a step boundary before.
# Each line is one incarnation, named by how it dies. `@n` counts in that process.
DEATHS = [
    "train.after_step:kill@1",  # before anything was saved
    "checkpoint.after_mkdir:kill",  # in the save of step 3
    "checkpoint.before_rename:kill",  # a step or more later
    "checkpoint.after_rename:kill",  # saved, not yet on record
    "train.after_step:kill@2",  # step 5, twice in a row
    "train.after_step:kill@2",
    "checkpoint.write:kill@9",  # in the save of step 6, in the middle of a file
    "checkpoint.after_file:kill@2",
    "train.after_step:kill@4",  # step 7, the last of its stage, before its save
    "checkpoint.after_manifest:kill@2",  # in that save
    "train.before_growth:kill",
    "checkpoint.write:kill@5",  # in the grown weights
    "checkpoint.after_file:kill@1",
    "checkpoint.before_manifest:kill",
    "checkpoint.before_rename:kill",
    "train.after_growth:kill",  # committed, not on record
    "train.after_step:kill@2",  # step 9, inside the ramp
    "prune.after_rename:kill",  # after the save of step 10: an older one is half removed
    "train.after_step:kill@1",  # step 11, inside the ramp, right after a resume
    "train.after_step:kill@2",  # step 12, where the ramp ends
    "train.after_growth:kill",  # clone and zero blocks
    "train.after_step:kill@2",
    "train.before_growth:kill",
    "checkpoint.after_rename:kill",  # the vocabulary has grown
    "train.after_step:kill@2",  # inside the ramp of its new rows and their own warm-up
    "train.after_step:kill@7",  # step 28, while that of step 27 is written
    "checkpoint.after_rename:kill",  # step 27 is saved
    "checkpoint.before_rename:kill",  # in the very last save
]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("train.precision=bf16",),
        ("model.family=flm", "model.tied=false"),
    ],
    ids=["fp32", "bf16", "flm-untied"],
)
def test_a_run_killed_at_every_point_in_turn_equals_the_straight_one(
    overrides: tuple[str, ...],
    recipe: MakeRecipe,
    straight: Callable[..., Outcome],
    tmp_path: Path,
) -> None:
    expected = straight(*overrides)
    for death in DEATHS:
        killed(recipe(*overrides), tmp_path, death)
        so_far = steps(tmp_path)
        assert so_far == expected["steps"][: len(so_far)], death
    run(recipe(*overrides), tmp_path)
    assert outcome(tmp_path) == expected
    assert len(records(tmp_path, "end")) == 1
    verified = records(tmp_path, "verified")
    assert len(verified) > 5
    assert all(r["identical"] for r in verified)
    assert messages(tmp_path) == []
