import json
from pathlib import Path

import pytest

from growlm.data.prepare import prepare
from growlm.testing.tiny import write_corpus
from growlm.train.restore import find_checkpoint, find_tokenizer, masked_model
from growlm.train.validate import generate, judge
from tests.cli.run_cli import growlm, train_four_steps


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, `tiny.toml`, `run` of four steps, and `ramp`, saved in one at step 10."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = train_four_steps(folder)
    assert growlm("train", recipe, "--run", folder / "ramp", fault="train.after_step:kill@14").code == -9
    return folder


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


def test_judge_says_how_likely_a_statement_is(trained: Path) -> None:
    call = ("sample", trained / "run", "--judge", "The river carries.", "It is wet.")
    done = growlm(*call, "--json")
    judged = json.loads(done.out)["judged"]
    assert (judged["text"], judged["statement"]) == ("The river carries.", "It is wet.")
    checkpoint = find_checkpoint(trained / "run")
    model, tokenizer = masked_model(checkpoint), find_tokenizer(checkpoint, None)
    assert judged["true"] == judge(model, tokenizer, "The river carries.", "It is wet.", context=16)
    assert growlm(*call).out == f"P(true) = {judged['true']:.3f}\n"
    assert growlm("sample", trained / "run", "--judge", "one").code == 2
