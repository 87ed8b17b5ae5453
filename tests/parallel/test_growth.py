"""Growth by several ranks: the bytes, the certificate and the errors of one."""

from pathlib import Path
from typing import Any

import pytest

from growlm.checkpoint.store import CheckpointStore
from growlm.testing.ranks import Ranks, fork_ranks
from tests.parallel import growth_jobs as jobs

ALL = {"d_model": 24, "n_heads": 6, "n_kv_heads": 3, "d_ff": 48, "n_layers": 5, "vocab_size": 96}
CLONED = {"d_model": 32, "n_heads": 8, "n_kv_heads": 4, "d_ff": 72}
GROWTHS: list[tuple[dict[str, int], dict[str, Any]]] = [
    (ALL, {"operator": "masked", "depth": "masked", "ramp_steps": 5}),
    (ALL, {"operator": "zero", "depth": "zero_block", "moments": "reset"}),
    (CLONED, {"operator": "clone", "noise": 0.3, "split": 0.4}),
    ({"n_layers": 5}, {"depth": "distance"}),
    (ALL, {"operator": "ligo", "depth": "stack", "learn_steps": 2}),
]


@pytest.fixture(scope="module")
def source(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in pieces of three ranks."""
    folder = tmp_path_factory.mktemp("source")
    ranks.run(jobs.write_source, str(folder), size=3)
    return folder


@pytest.mark.parametrize(("sizes", "settings"), GROWTHS)
def test_any_number_of_ranks_grow_the_same_bytes(
    ranks: Ranks, source: Path, sizes: dict[str, int], settings: dict[str, Any], tmp_path: Path
) -> None:
    told = {
        n: ranks.run(jobs.grow, str(source), str(tmp_path / str(n)), sizes, settings, size=n)
        for n in (1, 2, 4)
    }
    for n, outcomes in told.items():
        assert outcomes == [outcomes[0]] * n, "all ranks know the same"
        for key in ("entry", "hashes", "births", "path"):
            assert outcomes[0][key] == told[1][0][key]
    files = told[4][0]["files"]
    if settings.get("operator") == "ligo":
        assert files == told[1][0]["files"], "what was learned one rank has"
    else:
        share = sum(told[1][0]["files"].values()) / 4
        assert len(files) == 5, "four shares, one of which has the last weights and the first moments"
        largest = max(files.values())
        assert largest <= 1.1 * share, "each grows as much"


@pytest.mark.parametrize(
    ("rank", "how", "code", "what"),
    [
        (1, "wrong rows", 70, "declared exact but moved the logits"),
        (1, "checkpoint.write:enospc@3", 76, "rank 1, "),
        (0, "checkpoint.before_manifest:enospc", 76, "No space left"),
        (0, "checkpoint.after_mkdir:enospc", 76, "No space left"),
    ],
)
def test_what_fails_on_one_rank_fails_on_all_and_leaves_nothing(
    ranks: Ranks, source: Path, rank: int, how: str, code: int, what: str, tmp_path: Path
) -> None:
    told = ranks.run(jobs.fail, str(source), str(tmp_path), *GROWTHS[0], rank, how)
    for number, (error, left) in enumerate(told):
        assert error["code"] == code
        assert left == []
        assert (what in error["text"]) is (number == 0)


@pytest.mark.parametrize(
    ("sizes", "settings", "what"),
    [
        ({"d_ff": 16}, {}, "smaller than the"),
        ({"d_model": 20}, {"operator": "clone"}, "clone cannot take d_model"),
    ],
)
def test_what_is_refused_is_refused_once(
    ranks: Ranks, source: Path, sizes: dict[str, int], settings: dict[str, Any], what: str, tmp_path: Path
) -> None:
    told = ranks.run(jobs.fail, str(source), str(tmp_path), sizes, settings, 0, "", size=2)
    assert [error["kind"] for error, _ in told] == ["GrowthError", "Elsewhere"]
    assert what in told[0][0]["text"]
    assert "rank" not in told[0][0]["text"]
    assert [left for _, left in told] == [[], []]


@pytest.mark.parametrize(
    ("killed", "fault"), [(1, "checkpoint.write:kill@4"), (0, "checkpoint.after_file:kill@2")]
)
def test_a_killed_rank_leaves_nothing_that_counts(
    ranks: Ranks, source: Path, killed: int, fault: str, tmp_path: Path
) -> None:
    logs, folder = tmp_path / "logs", tmp_path / "checkpoints"
    logs.mkdir()
    codes = fork_ranks(
        2,
        lambda: jobs.grow_or_die(source, folder, *GROWTHS[1]),
        faults={killed: fault},
        logs=logs,
        timeout=10,
    )
    assert codes[killed] == -9
    assert CheckpointStore(folder, keep=9).checkpoints() == []
    assert ranks.run(jobs.grow, str(source), str(folder), *GROWTHS[1], size=2)[0]["path"]
    assert [path.name for path in folder.iterdir()] == ["step-00000007-grown"]
