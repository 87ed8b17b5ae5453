from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from growlm.cli.data import app
from growlm.errors import RecipeError
from tests.data.texts import chinese, english, write_jsonl


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    en = write_jsonl(folder / "en.jsonl", [*english(20), english(1)[0]])
    one, two = (write_jsonl(folder / f"zh{i}.jsonl", chinese(10, seed=i)) for i in range(2))
    flags = ["--source", f"en={en}", "--source", f"zh={one}", "--source", f"zh={two}", "--vocab-size", 300]
    summary = json.loads(run("prepare", folder / "out", *flags, "--json"))
    assert {name: source["files"] for name, source in summary["sources"].items()} == {"en": 1, "zh": 2}
    assert summary["sources"]["en"]["duplicates"] == 1
    return folder / "out"


def test_prepare_ends_with_a_table(out: Path, tmp_path: Path):
    printed = run(
        "prepare", tmp_path / "again", "--source", f"en={out.parent / 'en.jsonl'}", "--vocab-size", 300
    )
    assert "source" in printed.splitlines()[0]
    assert "en: exact duplicates left out 1 of 21 documents" in printed
    assert f"written to {tmp_path / 'again'}" in printed


def test_inspect_shows_counts_and_decoded_pieces(out: Path):
    printed = run("inspect", out, "--verify", "--n", 2)
    assert "every block of every shard" in printed
    assert printed.count("[en train, token") == printed.count("[zh train, token") == 2
    assert "Story" in printed
    assert "章" in printed


def test_inspect_for_scripts(out: Path):
    found = json.loads(run("inspect", out, "--source", "zh", "--split", "valid", "--n", 1, "--json"))
    assert list(found["pieces"]) == ["zh"]
    assert "章" in found["pieces"]["zh"][0]["text"]
    assert found["sources"]["zh"]["splits"]["valid"]["tokens"] > 0
    assert len(found["fingerprint"]) == 32


@pytest.mark.parametrize("flags", [["--source", "em"], ["--split", "test"]])
def test_inspect_of_what_is_not_there(out: Path, flags: list[str]):
    with pytest.raises(RecipeError, match="There is no"):
        run("inspect", out, *flags)


@pytest.mark.parametrize("flag", ["en", "=x", "en="])
def test_source_without_name_or_path(tmp_path: Path, flag: str):
    with pytest.raises(RecipeError, match="is no source"):
        run("prepare", tmp_path / "out", "--source", flag)


def test_prepare_replaces_nothing_unless_told_to(out: Path, tmp_path: Path):
    flags = ("--source", f"en={out.parent / 'en.jsonl'}", "--vocab-size", 300)
    run("prepare", tmp_path / "mine", *flags)
    before = {p: p.read_bytes() for p in (tmp_path / "mine").rglob("*") if p.is_file()}
    with pytest.raises(RecipeError, match="already") as refused:
        run("prepare", tmp_path / "mine", "--source", f"en={out.parent / 'zh0.jsonl'}")
    assert "--force" in refused.value.fix
    assert {p: p.read_bytes() for p in (tmp_path / "mine").rglob("*") if p.is_file()} == before
    run("prepare", tmp_path / "mine", *flags, "--force")


def test_all_kinds_of_sources_and_all_steps(tmp_path: Path):
    texts = english(30)
    en = write_jsonl(tmp_path / "en.jsonl", [*texts, *chinese(3), f"{texts[0]} Write to me@example.org."])
    with en.open("a") as file:
        file.write("{broken\n")
    answers = [{"prompt": f"What is {n} + 1?", "response": str(n + 1)} for n in range(20)]
    judged = [{"text": text, "proposition": "It sings.", "signal": "sang" in text} for text in texts]
    for name, rows in (("chat", answers), ("judged", judged), ("exam", [{"question": texts[4]}])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [f"--{flag}={name}={tmp_path / file}.jsonl" for flag, name, file in (
        ("source", "en", "en"), ("instructions", "chat", "chat"), ("signals", "rte", "judged"),
    )]  # fmt: skip
    options = ["--language=en=en", "--license=en=CC0", "--weight=en=2", "--weight=chat=1", "--pii"]
    summary = json.loads(
        run(
            *("prepare", tmp_path / "out", *files, *options, f"--decontaminate={tmp_path / 'exam.jsonl'}"),
            *("--vocab-size", 300, "--validation-share", 0.1, "--max-bad-rows", 1, "--json"),
        )
    )
    assert {name: source["kind"] for name, source in summary["sources"].items()} == {
        "en": "text",
        "chat": "instructions",
        "rte": "signals",
    }
    steps = {step["name"]: step for step in summary["sources"]["en"]["steps"]}
    assert list(steps) == [
        *("read", "normalise", "language", "pii", "contamination", "exact duplicates", "near duplicates")
    ]
    assert sum(steps["read"]["reasons"].values()) == 1
    assert steps["language"]["reasons"]["zh"] == 3
    assert sum(steps["pii"]["reasons"].values()) == 1
    assert steps["contamination"]["documents_in"] - steps["contamination"]["documents_out"] == 1
    assert steps["near duplicates"]["documents_out"] < steps["near duplicates"]["documents_in"]
    assert list(summary["sources"]["en"]["licenses"]) == ["CC0"]
    printed = run("inspect", tmp_path / "out", "--verify", "--n", 1)
    assert "[rte train" in printed
    assert "en: language left out 3 of 34 documents: zh 3" in printed
    assert (tmp_path / "out" / "card.md").read_text().startswith("#")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "No source was given"),
        (["--source=en=a", "--signals=en=b"], "given as text and as signals"),
        (["--source=en=a", "--weight=zh=1"], "no source 'zh'"),
        (["--source=en=a", "--weight=en=much"], "no number"),
        (["--source=en=a", "--source=zh=b", "--weight=en=1"], "'zh' has no weight"),
        (["--tokens=en=a"], "its tokenizer was not given"),
        (["--signals=en=a", "--language=en=en"], "only"),
        (["--source=en=a", "--executor=cloud"], "no executor"),
    ],
)
def test_flags_that_contradict(tmp_path: Path, flags: list[str], words: str):
    with pytest.raises(RecipeError, match=words):
        run("prepare", tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()
