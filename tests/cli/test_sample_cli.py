import json
import os
import pty
import select
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from growlm.cli.main import main
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
    true = judge(model, tokenizer, "The river carries.", "It is wet.", context=16)
    assert judged["true"] == pytest.approx(true, abs=1e-6)
    assert growlm(*call).out == f"P(true) = {judged['true']:.3f}\n"
    assert growlm("sample", trained / "run", "--judge", "one").code == 2


def talk(turns: list[str], *args: object) -> str:
    """What a terminal shows of `growlm ARGS` where somebody types a turn whenever there is a prompt."""
    pid, terminal = pty.fork()
    if pid == 0:
        sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
        sys.stderr = sys.stdout
        sys.argv = ["growlm", *map(str, args)]
        code: object = 1
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code
        finally:
            sys.stdout.flush()
            os._exit(code if isinstance(code, int) else 0)
    shown = b""
    for turn in turns:
        before = shown.count(b"> ")
        while shown.count(b"> ") == before:
            assert select.select([terminal], [], [], 60)[0], shown
            shown += os.read(terminal, 4096)
        os.write(terminal, turn.encode())
    with suppress(OSError):  # how a terminal ends on Linux
        while select.select([terminal], [], [], 60)[0]:
            shown += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return shown.decode()


def test_turns_on_a_terminal_and_line_by_line(trained: Path) -> None:
    call = ("sample", trained / "run", "--tokens", 6, "--temperature", 0, "--seed", 1)
    first = json.loads(growlm(*call, "--prompt", "河流", "--json").out)["samples"][0]["text"]
    shown = talk(["河流\n", "/reset\n", "河流\n", "\x04"], *call)
    visible = first.strip().rstrip("\ufffd")
    assert "/quit" in shown
    assert shown.count(visible) >= 2
    assert "\ufffd" not in shown.replace(first, "")
    done = growlm(*call, "--chat", stdin="河流\n/reset\n河流\n")
    assert done.code == 0
    assert done.out == f"{first.rstrip(chr(0xFFFD))}\n" * 2


def test_a_hugging_face_folder_is_sampled_too(trained: Path, tmp_path: Path) -> None:
    assert growlm("export", trained / "run", tmp_path / "hf", "--as", "growlm").code == 0
    texts = [
        json.loads(growlm("sample", source, "--prompt", "The river", "--context", 16, "--json").out)[
            "samples"
        ]
        for source in (trained / "run", tmp_path / "hf")
    ]
    assert texts[0] == texts[1]
