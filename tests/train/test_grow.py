"""Growth from checkpoint to checkpoint: the same tensors as in memory, and old or both at any instant."""

from pathlib import Path
from typing import Any

import pytest
import torch

from growlm.checkpoint.store import Checkpoint, CheckpointStore
from growlm.errors import CheckpointError, GrowthError
from growlm.growth import chunks
from growlm.growth.apply import Kind, grow_births, grow_rows
from growlm.growth.operators import plan_growth
from growlm.model.parameters import parameter_table
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig
from growlm.train.grow import grow_checkpoint
from growlm.train.state import MODEL_FILE, OPTIMIZER_FILE, TrainState
from growlm.train.supervisor import run
from tests.checkpoint.helpers import in_child
from tests.train.conftest import MakeRecipe
from tests.train.helpers import ALONE, messages, newest, records

FACTS: dict[str, Any] = dict.fromkeys(("recipe_hash", "data_fingerprint", "tokenizer_hash"), "")
FACTS["environment"] = {}
BATCH = (torch.arange(64).view(2, 32), torch.arange(1, 65).view(2, 32))
ALL = {"d_model": 24, "n_heads": 4, "n_kv_heads": 4, "d_ff": 48, "n_layers": 3, "vocab_size": 384}
CLONED = {"d_model": 48, "n_heads": 6, "n_kv_heads": 6, "d_ff": 64, "n_layers": 2}

GROWTHS: list[tuple[dict[str, int], dict[str, Any]]] = [
    (ALL, {"operator": "masked", "depth": "masked"}),
    (ALL, {"operator": "zero", "depth": "zero_block", "ramp_steps": 3}),
    (CLONED, {"operator": "clone", "noise": 0.3, "split": 0.4}),
    ({"n_layers": 2}, {"depth": "stack"}),
    (ALL, {"operator": "masked", "moments": "reset"}),
]


def grow_to(
    source: Checkpoint, store: CheckpointStore, sizes: dict[str, int], settings: dict[str, Any]
) -> dict[str, Any]:
    old = ModelConfig(**source.manifest.model)  # type: ignore[arg-type]
    table = GrowthTable.model_validate(settings)
    return grow_checkpoint(source, old.with_(**sizes), table, store, seed=5, batch=BATCH, facts=FACTS)[1]


@pytest.mark.parametrize(("sizes", "settings"), GROWTHS)
@pytest.mark.parametrize("chunk", [300, 8 << 20])
def test_a_streamed_growth_equals_growing_whole_tensors(
    sizes: dict[str, int],
    settings: dict[str, Any],
    chunk: int,
    source: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", chunk)
    store = CheckpointStore(tmp_path, keep=2)
    entry = grow_to(source, store, sizes, settings)
    grown = store.latest_valid(pytest.fail)
    assert grown is not None
    old = ModelConfig(**source.manifest.model)  # type: ignore[arg-type]
    plan = plan_growth(old, old.with_(**sizes), GrowthTable.model_validate(settings), seed=5)
    before = source.load(MODEL_FILE) | source.load(OPTIMIZER_FILE)
    after = grown.load(MODEL_FILE) | grown.load(OPTIMIZER_FILE)
    kinds: list[tuple[Kind, str]] = [
        ("weight", ""),
        ("exp_avg", "exp_avg/"),
        ("exp_avg_sq", "exp_avg_sq/"),
    ]
    for name, parameter in parameter_table(plan.new).items():
        for kind, prefix in kinds:
            whole = grow_rows(
                plan, parameter, kind, 0, parameter.shape[0], lambda n, a, b, p=prefix: before[p + n][a:b]
            )
            assert torch.equal(after.pop(prefix + name), whole), (kind, name)
    assert after == {}
    manifest = grown.manifest
    assert manifest.boundary == "after_growth"
    assert manifest.lineage == [entry]
    assert manifest.births == grow_births(plan, {}, source.manifest.updates)
    assert (manifest.stage, manifest.stage_step, manifest.step) == (1, 0, source.manifest.step)
    assert manifest.mask == (0.0 if plan.ramp.steps else 1.0)
    assert entry["certificate"]["exact"] is plan.exact
    if plan.exact:
        assert entry["certificate"]["max_dlogit"] <= entry["certificate"]["tolerance"]


def test_a_kill_at_any_point_leaves_the_old_checkpoint_or_both(source: Checkpoint, tmp_path: Path) -> None:
    sizes, settings = GROWTHS[0]
    grow_to(source, CheckpointStore(tmp_path / "never", keep=2), sizes, settings)
    expected = CheckpointStore(tmp_path / "never", keep=2).latest_valid(pytest.fail)
    assert expected is not None
    deaths = ["after_mkdir", "write@1", "write@20", "write@40", "after_file@1", "after_file@2"]
    deaths += ["before_manifest", "after_manifest", "before_rename", "after_rename"]
    for death in deaths:
        folder = tmp_path / death
        point, _, nth = death.partition("@")
        fault = f"checkpoint.{point}:kill@{nth or 1}"
        store = CheckpointStore(folder, keep=2)
        assert in_child(lambda s=store: grow_to(source, s, sizes, settings), fault) == -9, death
        found = CheckpointStore(folder, keep=2).latest_valid(pytest.fail)
        assert (found is not None) is (death == "after_rename"), death
        grow_to(source, CheckpointStore(folder, keep=2), sizes, settings)
        again = CheckpointStore(folder, keep=2).latest_valid(pytest.fail)
        assert again is not None
        assert again.manifest.files == expected.manifest.files
        assert again.manifest.lineage == expected.manifest.lineage
        assert not list(folder.glob(".tmp-*")), "what the dead process left is cleared"


@pytest.mark.parametrize(
    ("sizes", "settings", "what"),
    [
        ({"d_ff": 16}, {}, "smaller than the"),
        ({"head_dim": 4}, {}, "head_dim"),
        ({"d_model": 40}, {"operator": "clone"}, "clone cannot take d_model"),
    ],
)
def test_what_is_refused_leaves_nothing(
    sizes: dict[str, int], settings: dict[str, Any], what: str, source: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(GrowthError, match=what):
        grow_to(source, CheckpointStore(tmp_path / "out", keep=2), sizes, settings)
    assert not (tmp_path / "out").exists()


def test_a_growth_that_is_not_exact_as_declared_commits_nothing(
    source: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> torch.Tensor:
        return grow_rows(*args) * 1.01

    monkeypatch.setattr(chunks, "grow_rows", broken)
    with pytest.raises(GrowthError, match="declared exact but moved the logits") as error:
        grow_to(source, CheckpointStore(tmp_path, keep=2), *GROWTHS[0])
    assert "block 0" in error.value.where
    assert list(tmp_path.iterdir()) == []


def test_a_state_loads_with_what_growth_left(source: Checkpoint, recipe: MakeRecipe, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    grow_to(source, store, *GROWTHS[1])
    grown = store.latest_valid(pytest.fail)
    assert grown is not None
    state = TrainState.load(grown, recipe(), ALONE)
    assert state.mask == 0.0
    assert state.ramp is not None
    assert state.ramp.axes["vocab"] == ((320, 384),)
    assert state.guard.losses == [], "another model has other losses"
    births = {part.birth for part in state.optimizer.parts["blocks.0.mlp.up_proj.weight"]}
    assert births == {0, source.manifest.updates}


def test_tensors_that_do_not_fit_are_a_damaged_checkpoint(source: Checkpoint, recipe: MakeRecipe) -> None:
    wrong = source.manifest.model | {"d_ff": 64}
    other = Checkpoint(source.path, source.manifest.model_copy(update={"model": wrong}))
    with pytest.raises(CheckpointError, match="do not fit"):
        TrainState.load(other, recipe(), ALONE)


def test_the_certificate_is_in_the_record_and_in_the_manifest(recipe: MakeRecipe, tmp_path: Path) -> None:
    run(recipe(), tmp_path)
    lineage = newest(tmp_path).manifest.lineage
    recorded = records(tmp_path, "growth")
    assert [r["certificate"] for r in recorded] == [entry["certificate"] for entry in lineage]
    assert [r["operator"] for r in recorded] == ["masked", "clone", "masked"]
    for growth in recorded:
        certificate = growth["certificate"]
        assert certificate["exact"]
        assert certificate["max_dlogit"] <= 1e-5
        if growth["operator"] == "masked":  # the noise of a clone is in its gradients
            assert certificate["gradient"]["max_error"] < 1e-5


def test_a_checkpoint_inside_a_ramp_is_not_grown(source: Checkpoint, tmp_path: Path) -> None:
    inside = Checkpoint(source.path, source.manifest.model_copy(update={"mask": 0.2}))
    store = CheckpointStore(tmp_path / "out", keep=2)
    with pytest.raises(GrowthError, match="inside a mask ramp"):
        grow_to(inside, store, ALL, {})
    assert not store.checkpoints()


@pytest.mark.parametrize(("moments", "warned"), [("grow", True), ("asymmetric", False)])
def test_copies_that_stay_equal_are_a_warning(
    recipe: MakeRecipe, moments: str, warned: bool, tmp_path: Path
) -> None:
    growth = (
        f"growth = {{operator = 'clone', noise = 0.0, force = true, moments = '{moments}', rewarm_steps = 2}}"
    )
    shape = "n_layers = 1, tokens = 512, seq_len = 16, batch_size = 8"
    small = f"{{name = 'small', d_model = 16, n_heads = 2, d_ff = 32, {shape}}}"
    wide = f"{{name = 'wide', d_model = 16, n_heads = 2, d_ff = 64, {shape}, {growth}}}"
    run(recipe(f"stages=[{small}, {wide}]"), tmp_path)
    assert any("can never part ways on ffn (32 of 64" in m for m in messages(tmp_path)) is warned
