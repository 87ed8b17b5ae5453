"""`growlm grow` as a user runs it: checkpoints and foreign folders, sizes and recipes, kills and mistakes."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from growlm.checkpoint.store import CheckpointStore
from growlm.convert.folder import FolderWeights
from growlm.data.prepare import prepare
from growlm.testing.tiny import VOCABULARY, write_corpus, write_recipe
from growlm.train.restore import find_checkpoint
from tests.cli.run_cli import growlm, train_four_steps
from tests.convert.folders import make_folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, `tiny.toml`, `run`, trained for four steps, and the foreign folder `llama`."""
    folder = tmp_path_factory.mktemp("trained")
    train_four_steps(folder)
    make_folder(folder / "llama", "llama", vocab_size=VOCABULARY)
    return folder


def test_a_checkpoint_grows_into_a_certified_one(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "grown"
    call = ("--to", "d_model=32,n_layers=2", "--operator", "masked", "--out", out)
    done = growlm("grow", trained / "run", *call)
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        f"grown: {out}", "max |dlogit| 0   dloss +0 on random tokens   (full, fp32)", "exact",
    ]  # fmt: skip
    assert CheckpointStore.verify(out) == []
    assert find_checkpoint(out).manifest.model["d_model"] == 32


def test_json_is_the_entry_of_the_lineage(trained: Path, tmp_path: Path) -> None:
    sizes = "n_heads=2x,d_ff=64,vocab_size=384"
    call = ("--to", sizes, "--data", trained / "data", "--out", tmp_path / "grown", "--json")
    done = growlm("grow", trained / "run", *call)
    assert done.code == 0, done.err
    entry = json.loads(done.out)
    assert entry.pop("path") == str(tmp_path / "grown")
    assert entry["certificate"]["exact"]
    assert entry["to"]["n_kv_heads"] == 4, "a model without groups stays without"
    assert find_checkpoint(tmp_path / "grown").manifest.lineage == [entry]


def test_a_grown_checkpoint_grows_again_and_samples(trained: Path, tmp_path: Path) -> None:
    clone = ("--operator", "clone", "--to", "width=2x", "--set", "certify=fp64", "--set", "noise=0.05")
    assert growlm("grow", trained / "run", *clone, "--out", tmp_path / "a").code == 0
    again = ("--to", "depth=2x", "--depth", "stack", "--out", tmp_path / "b")
    assert growlm("grow", tmp_path / "a", *again).code == 0
    assert [entry["depth"] for entry in find_checkpoint(tmp_path / "b").manifest.lineage] == [
        "zero_block",
        "stack",
    ]
    done = growlm("sample", tmp_path / "b", "--prompt", "The", "--data", trained / "data", "--tokens", 4)
    assert done.code == 0


def test_shards_hold_what_one_file_does(trained: Path, tmp_path: Path) -> None:
    call = ("--to", "width=2x,depth=3x", "--operator", "clone")
    assert growlm("grow", trained / "run", *call, "--out", tmp_path / "one").code == 0
    assert (
        growlm("grow", trained / "run", *call, "--out", tmp_path / "many", "--shard-size", "20KB").code == 0
    )
    one, many = find_checkpoint(tmp_path / "one"), find_checkpoint(tmp_path / "many")
    assert one.manifest.files.keys() == {"model.safetensors", "optimizer.safetensors"}
    assert len(many.manifest.files) > 6
    for file in one.manifest.files:
        whole, parts = one.load(file), many.load(file)
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[name], parts[name]) for name in whole)
    for field in ("model", "births", "mask", "stage", "updates", "tokenizer_hash"):
        assert getattr(one.manifest, field) == getattr(many.manifest, field)


@pytest.mark.parametrize("source", ["run", "llama"])
@pytest.mark.parametrize("death", ["checkpoint.write:kill@9", "shards.after_journal:kill@2"])
def test_the_same_command_continues_after_a_kill(
    source: str, death: str, trained: Path, tmp_path: Path
) -> None:
    def grow(out: str, fault: str = "") -> int:
        call = ("--to", "width=2x", "--operator", "clone", "--shard-size", "20KB", "--out", tmp_path / out)
        return growlm("grow", trained / source, *call, fault=fault).code

    assert grow("straight") == 0
    assert grow("killed", death) == -9
    assert not (tmp_path / "killed").exists()
    assert grow("killed") == 0
    files = [
        {p.name: p.read_bytes() for p in (tmp_path / f).glob("*.safetensors")} for f in ("straight", "killed")
    ]
    assert files[0] == files[1]


@pytest.mark.parametrize("source", ["run", "llama"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_the_same_command_continues(
    source: str, number: int, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ("grow", trained / source, "--to", "width=2x", "--shard-size", "20KB", "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr("growlm.convert.shards.fault_point", lambda _: os.kill(os.getpid(), number))
        done = growlm(*call)
    assert (done.code, "Traceback" in done.err) == (128 + number, False)
    (partial,) = tmp_path.iterdir()
    assert any(partial.iterdir()), "what was written stays"
    assert growlm(*call).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_foreign_folder_grows_into_one_of_its_kind(trained: Path, tmp_path: Path) -> None:
    call = ("--to", "width=2x,depth=1.5x", "--out", tmp_path / "grown")
    done = growlm("grow", trained / "llama", *call, "--data", trained / "data")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "exact"
    assert f" on held-out text of {trained / 'data'} " in done.out
    with FolderWeights(tmp_path / "grown") as weights:
        assert (weights.config.d_model, weights.config.n_layers) == (32, 3)
    (entry,) = json.loads((tmp_path / "grown" / "growth.json").read_text())["lineage"]
    assert entry["certificate"]["max_dlogit"] <= 1e-5
    assert (entry["operator"], entry["depth"]) == ("clone", "zero_block"), "the defaults"


def test_a_recipe_says_what_to_grow_to(trained: Path, tmp_path: Path) -> None:
    """The first stage that is larger, or the named one, with its [stages.growth] under the flags."""
    call = ("grow", trained / "run", "--json")
    done = growlm(*call, "--to", trained / "tiny.toml", "--out", tmp_path / "a")
    assert done.code == 0, done.err
    entry = json.loads(done.out)
    assert (entry["operator"], entry["depth"], entry["to"]["d_model"]) == ("masked", "masked", 24)
    assert entry["ramp"]["steps"] == 5
    done = growlm(
        *call, "--to", f"{trained / 'tiny.toml'}:clone", "--depth", "stack", "--out", tmp_path / "b"
    )
    assert done.code == 0, done.err
    entry = json.loads(done.out)
    assert (entry["operator"], entry["depth"], entry["to"]["d_model"]) == ("clone", "stack", 48)
    for stage, what in (("", "no stage of this recipe is larger"), (":big", "no stage is named 'big'")):
        done = growlm(
            "grow", trained / "llama", "--to", f"{write_smaller(tmp_path)}{stage}", "--out", tmp_path / "c"
        )
        assert (done.code, what in done.err) == (2, True), done.err


def test_copies_that_can_never_part_are_said(trained: Path, tmp_path: Path) -> None:
    call = ("grow", trained / "llama", "--to", "d_ff=2x", "--operator", "clone")
    locked = growlm(*call, "--set", "noise=0.0", "--set", "force=true", "--out", tmp_path / "a")
    assert locked.code == 0, locked.err
    assert locked.out.splitlines()[-1] == (
        "copies that can never part (but by asymmetric moments): ffn 24 of 48 distinct; set noise or split"
    )
    parted = growlm(*call, "--set", "noise=0.1", "--out", tmp_path / "b")
    assert parted.out.splitlines()[-1] == "exact"


def test_probes_of_an_operator_that_does_more_than_copy_give_no_number(trained: Path, tmp_path: Path) -> None:
    call = ("--operator", "shrink_perturb", "--to", "d_ff=2x", "--certificate", "sampled")
    done = growlm("grow", trained / "run", *call, "--out", tmp_path / "a")
    assert done.code == 0, done.err
    assert "compared with nothing" in done.out
    assert growlm("export", tmp_path / "a", tmp_path / "b", "--data", trained / "data").code == 0
    assert "not exact by design, sampled" in (tmp_path / "b" / "README.md").read_text()


def write_smaller(folder: Path) -> Path:
    """A recipe whose stages are all smaller than the foreign folder."""
    path = folder / "smaller.toml"
    if not path.exists():
        write_recipe(path, folder / "data")
        text = path.read_text().split("[[stages]]")
        path.write_text("[[stages]]".join(text[:2]).replace("d_model = 16", "d_model = 8"))
    return path


def test_a_dry_run_says_it_all_and_writes_nothing(trained: Path, tmp_path: Path) -> None:
    call = ("--to", "width=2x,depth=2x", "--operator", "clone", "--out", tmp_path / "no", "--dry-run")
    done = growlm("grow", trained / "llama", *call)
    assert done.code == 0, done.err
    assert "blocks.0.mlp.up_proj.weight" in done.out
    assert "24 + 24 copies" in done.out
    assert "1<-0 zero" in done.out
    (plan,) = json.loads(growlm("grow", trained / "llama", *call, "--json").out)["growths"]
    assert plan["bytes"] == sum(t["bytes"] for t in plan["tensors"]) == 4 * plan["parameters"][1]
    assert plan["seconds"] == pytest.approx(plan["bytes"] / plan["rate"])
    zeros = [t["name"] for t in plan["tensors"] if t["from"] is None]
    assert zeros == [f"blocks.{i}.{n}.weight" for i in (1, 3) for n in ("attn.o_proj", "mlp.down_proj")]
    checkpoint = growlm("grow", trained / "run", "--to", "depth=2x", "--dry-run", "--json")
    (plan,) = json.loads(checkpoint.out)["growths"]
    assert plan["bytes"] == 12 * plan["parameters"][1], "weights and two moments"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("recipe", "counts"),
    [
        ("flm-101b", [15_793_445_888, 50_948_551_680, 101_701_570_560]),
        ("tele-flm-1t", [52_824_121_344, 102_206_351_360, 1_083_813_908_480]),
    ],
)
def test_a_dry_run_of_a_recipe_plans_all_its_growths(recipe: str, counts: list[int]) -> None:
    path = Path(__file__).parents[2] / "recipes" / f"{recipe}.toml"
    done = growlm("grow", path, "--dry-run", "--json")
    assert done.code == 0, done.err
    plans = json.loads(done.out)["growths"]
    assert [plan["parameters"] for plan in plans] == [counts[:2], counts[1:]]
    for plan in plans:
        largest = max(t["bytes"] for t in plan["tensors"]) / 3
        assert plan["peak_memory"] == 500_000_000 + 2 * largest


@pytest.mark.parametrize(
    ("flags", "code", "what"),
    [
        (("--to", "d_model=8"), 70, "d_model 8 is smaller than the 16"),
        (("--to", "d_model=24", "--operator", "clone"), 70, "clone cannot take d_model from 16 to 24"),
        (("--to", "d_model=24"), 70, "(on the command line: --set operator=...)"),
        (("--to", "n_heads=3,n_kv_heads=2"), 2, "3 query heads cannot share 2 key/value heads"),
        (("--to", "depth=1x"), 2, "nothing to grow"),
        (("--to", "d_model=32", "--operator", "copy"), 2, "where: --operator\n"),
        (("--to", "d_model=32", "--set", "ramp_steps=-1"), 2, "where: --set ramp_steps\n"),
        (("--to", "d_model=32", "--set", "ramp=1"), 2, "where: --set ramp\n"),
        (("--to", "d_model=32", "--set", "noise"), 2, "a setting is a name and a value"),
        (("--to", "wide"), 2, "'wide' is not a new size"),
        (("--to", "d_model=32", "--certificate", "none"), 2, "no certificate 'none'"),
        (("--to", "d_model=32", "--shard-size", "big"), 2, "not a number of bytes"),
        ((), 2, "what to grow to"),
        (("--d-model", 32), 2, "--d-model"),
        (("--to", "nowhere.toml"), 2, "nowhere.toml"),
    ],
)
def test_grow_refuses(flags: tuple[object, ...], code: int, what: str, trained: Path, tmp_path: Path) -> None:
    done = growlm("grow", trained / "run", *flags, "--out", tmp_path / "out")
    assert (done.code, what in done.err) == (code, True), done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


def test_grow_refuses_what_is_no_checkpoint_or_a_damaged_one(trained: Path, tmp_path: Path) -> None:
    call = ("--to", "d_model=32", "--out", tmp_path / "out")
    done = growlm("grow", tmp_path, *call)
    assert (done.code, "no checkpoint here" in done.err) == (65, True)
    assert "or a Hugging Face folder" in done.err
    damaged = tmp_path / "step-00000004"
    damaged.mkdir()
    for file in (trained / "run" / "checkpoints" / "step-00000004").iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    done = growlm("grow", damaged, *call)
    assert (done.code, "model.safetensors: its content changed" in done.err) == (65, True)


@pytest.mark.parametrize("verb", ["grow", "import", "export"])
def test_a_source_that_is_not_there_or_a_gguf_file(verb: str, tmp_path: Path) -> None:
    call = ("--to", "width=2x", "--out", tmp_path / "out") if verb == "grow" else (tmp_path / "out",)
    done = growlm(verb, tmp_path / "nothere", *call)
    assert (done.code, "no such file or folder" in done.err) == (65, True), done.err
    (tmp_path / "a.gguf").touch()
    done = growlm(verb, tmp_path / "a.gguf", *call)
    assert (done.code, "From a GGUF file" in done.err) == (65, True), done.err


def test_data_of_another_tokenizer_is_refused(trained: Path, tmp_path: Path) -> None:
    prepare(tmp_path / "other", write_corpus(tmp_path / "text"), vocab_size=400)
    call = ("--to", "d_ff=2x", "--operator", "zero", "--data", tmp_path / "other", "--out", tmp_path / "out")
    for source in ("run", "llama"):
        done = growlm("grow", trained / source, *call)
        assert (done.code, "another tokenizer" in done.err) == (65, True), done.err
