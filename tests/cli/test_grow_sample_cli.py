import json
from pathlib import Path

import pytest

from growlm.checkpoint.store import CheckpointStore
from growlm.data.prepare import prepare
from growlm.testing.tiny import VOCABULARY, write_corpus, write_recipe
from growlm.train.restore import find_checkpoint, find_tokenizer, masked_model
from growlm.train.validate import generate
from tests.cli.run_cli import growlm

ONE = (
    "stages=[{name = 'only', d_model = 16, n_heads = 2, d_ff = 32, n_layers = 1,"
    " tokens = 512, seq_len = 16, batch_size = 8}]"
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, `tiny.toml` and `run`, trained for four steps and then killed in a ramp."""
    folder = tmp_path_factory.mktemp("trained")
    text = write_corpus(folder / "text")
    prepare(folder / "data", text, vocab_size=VOCABULARY, validation_share=0.1)
    recipe = write_recipe(folder / "tiny.toml", folder / "data")
    assert growlm("train", recipe, "--run", folder / "run", "--set", ONE).code == 0
    assert growlm("train", recipe, "--run", folder / "ramp", fault="train.after_step:kill@12").code == -9
    return folder


def test_grow_writes_a_certified_checkpoint_and_says_so(trained: Path, tmp_path: Path) -> None:
    done = growlm("grow", trained / "run", tmp_path, "--d-model", 32, "--n-layers", 2)
    assert done.code == 0
    assert f"grown checkpoint: {tmp_path / 'step-00000004-grown'}" in done.out
    assert "max |dlogit| 0 " in done.out
    assert done.out.splitlines()[-1] == "exact"
    grown = CheckpointStore(tmp_path, keep=2).latest_valid(pytest.fail)
    assert grown is not None
    assert grown.manifest.model["d_model"] == 32


def test_grow_json_is_the_entry_of_the_lineage(trained: Path, tmp_path: Path) -> None:
    sizes = ("--n-heads", 4, "--d-ff", 64, "--vocab-size", 384)
    done = growlm("grow", trained / "run", tmp_path, *sizes, "--data", trained / "data", "--json")
    assert done.code == 0
    entry = json.loads(done.out)
    assert entry["certificate"]["exact"]
    assert entry["to"]["n_kv_heads"] == 4, "a model without groups stays without"
    manifest = json.loads((Path(entry["path"]) / "manifest.json").read_text())
    assert manifest["lineage"] == [{k: v for k, v in entry.items() if k != "path"}]


def test_a_grown_checkpoint_grows_again_and_samples(trained: Path, tmp_path: Path) -> None:
    clone = ("--operator", "clone", "--d-model", 32, "--certify", "fp64")
    assert growlm("grow", trained / "run", tmp_path / "a", *clone).code == 0
    assert growlm("grow", tmp_path / "a", tmp_path / "b", "--n-layers", 2, "--depth", "stack").code == 0
    done = growlm("sample", tmp_path / "b", "--prompt", "The", "--data", trained / "data", "--tokens", 4)
    assert done.code == 0


@pytest.mark.parametrize(
    ("flags", "code", "what"),
    [
        (("--d-model", 8), 70, "d_model 8 is smaller than the 16"),
        (("--d-model", 24, "--operator", "clone"), 70, "clone cannot take d_model from 16 to 24"),
        (("--n-heads", 3, "--n-kv-heads", 2), 2, "3 query heads cannot share 2 key/value heads"),
        (("--d-model", 32, "--operator", "copy"), 2, "operator = 'copy'"),
        (("--d-model", 32, "--ramp-steps", -1), 2, "ramp_steps = -1"),
        (("--d-model", "wide"), 2, "--d-model"),
        (("--width", 32), 2, "--width"),
    ],
)
def test_grow_refuses(flags: tuple[object, ...], code: int, what: str, trained: Path, tmp_path: Path) -> None:
    done = growlm("grow", trained / "run", tmp_path / "out", *flags)
    assert done.code == code
    assert what in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_grow_refuses_what_is_no_checkpoint_or_a_damaged_one(trained: Path, tmp_path: Path) -> None:
    done = growlm("grow", tmp_path, tmp_path / "out", "--d-model", 32)
    assert (done.code, "no checkpoint here" in done.err) == (65, True)
    damaged = tmp_path / "step-00000004"
    damaged.mkdir()
    for file in (trained / "run" / "checkpoints" / "step-00000004").iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    done = growlm("grow", damaged, tmp_path / "out", "--d-model", 32)
    assert (done.code, "model.safetensors: its content changed" in done.err) == (65, True)


def test_sample_is_decided_by_the_seed(trained: Path) -> None:
    call = ("sample", trained / "run", "--prompt", "The river", "--prompt", "河流", "--tokens", 12, "--json")
    first, again, other = (growlm(*call, "--seed", seed) for seed in (1, 1, 2))
    assert first.code == 0
    assert first.out == again.out != other.out
    parsed = json.loads(first.out)
    assert [sample["prompt"] for sample in parsed["samples"]] == ["The river", "河流"]
    assert parsed["checkpoint"].endswith("step-00000004")
    plain = growlm("sample", trained / "run", "--prompt", "河流", "--tokens", 12)
    assert parsed["samples"][1]["text"] in plain.out


def test_a_checkpoint_from_inside_a_ramp_samples_as_masked_as_it_was_trained(trained: Path) -> None:
    checkpoint = find_checkpoint(trained / "ramp" / "checkpoints" / "step-00000010")
    model, tokenizer = masked_model(checkpoint), find_tokenizer(checkpoint, None)
    assert model.masks is not None
    assert model.masks.value == pytest.approx(0.6)
    call = ("sample", checkpoint.path, "--prompt", "The", "--tokens", 8, "--temperature", 0, "--json")
    text = generate(model, tokenizer, "The", tokens=8, context=512, seed=1, temperature=0)
    assert json.loads(growlm(*call).out)["samples"] == [{"prompt": "The", "text": text}]


def test_sample_wants_the_tokenizer_it_was_trained_with(trained: Path, tmp_path: Path) -> None:
    prepare(tmp_path / "other", write_corpus(tmp_path / "text"), vocab_size=300)
    done = growlm("sample", trained / "run", "--prompt", "a", "--data", tmp_path / "other")
    assert (done.code, "not the one the checkpoint was trained with" in done.err) == (65, True)
    done = growlm("sample", trained / "run", "--prompt", "a", "--data", tmp_path)
    assert (done.code, "--data FOLDER" in done.err) == (65, True)
    assert growlm("sample", trained / "run").code == 2
