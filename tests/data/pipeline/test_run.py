"""Nothing in a prepared folder depends on how the work was cut, who did it, or who was killed meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest

from growlm.data.dataset import TokenDataset
from growlm.data.manifest import MARK, Manifest
from growlm.data.pipeline.local import _Worker
from growlm.data.pipeline.tasks import run_task
from growlm.data.pipeline.work import PLAN, Work
from growlm.data.prepare import Cleaning, SourceOptions, prepare
from growlm.data.tokenizer import SIGNALS, Tokenizer
from growlm.errors import DataError, GrowLMError, RecipeError
from growlm.testing.faults import VARIABLE
from tests.data.pipeline.material import mixed, propositions, write_rows
from tests.data.texts import chinese, english, folder_bytes, write_jsonl

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    sources, options = mixed(folder / "in")
    prepare(folder / "expected", sources, **options)
    return folder


@pytest.mark.parametrize(("part_bytes", "workers"), [(1 << 20, 1), (8000, 2)])
def test_parts_and_workers_change_no_byte(material: Path, tmp_path: Path, part_bytes: int, workers: int):
    sources, options = mixed(material / "in")
    options |= {"part_bytes": part_bytes, "workers": workers}
    prepare(tmp_path / "out", sources, **options)
    found, expected = folder_bytes(tmp_path / "out"), folder_bytes(material / "expected")
    found.pop("quarantine.jsonl")  # names a row by its line where it can, else by its byte
    expected.pop("quarantine.jsonl")
    assert found == expected


def test_killed_in_every_phase_the_same_command_goes_on_to_the_same_bytes(material: Path, tmp_path: Path):
    mixed(material / "in")
    code = (
        "import sys; from pathlib import Path; from growlm.data.prepare import prepare\n"
        "from tests.data.pipeline.material import mixed\n"
        "sources, options = mixed(Path(sys.argv[2]))\n"
        "prepare(Path(sys.argv[1]), sources, **options)"
    )
    command = [sys.executable, "-c", code, tmp_path / "out", material / "in"]
    faults = ("scan:kill@2", "near:kill@3", "settle:kill", "encode:kill@4", "assemble:kill", "write:kill@9")
    for fault in faults:
        environment = {**os.environ, VARIABLE: f"data.{fault}"}
        killed = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (tmp_path / "out").exists()
    done = {path.parent.name for path in (tmp_path / ".out.preparing").glob("*/*/0*")}
    assert {"scan", "exact", "near", "settle", "tokenizer", "encode", "assemble"} <= done
    sources, options = mixed(material / "in")
    os.environ[VARIABLE] = "data.encode:enospc"  # what is done is not done again: this would fail it
    try:
        prepare(tmp_path / "out", sources, **options)
    finally:
        del os.environ[VARIABLE]
    assert folder_bytes(tmp_path / "out") == folder_bytes(material / "expected")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_worker_that_is_killed_is_said_and_the_command_goes_on(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sources, options = mixed(material / "in")
    monkeypatch.setenv(VARIABLE, "data.scan:kill@2")
    with pytest.raises(GrowLMError, match="worker of the preparation was killed") as caught:
        prepare(tmp_path / "out", sources, **options, workers=2)
    assert "signal 9" in caught.value.why
    monkeypatch.delenv(VARIABLE)
    prepare(tmp_path / "out", sources, **options)
    assert folder_bytes(tmp_path / "out") == folder_bytes(material / "expected")


def test_an_error_in_a_worker_is_the_same_error(tmp_path: Path):
    bad = write_jsonl(tmp_path / "bad.jsonl", [*english(20), "  "])
    bad.write_text(bad.read_text() + "{")
    with pytest.raises(DataError, match="not a JSON object") as caught:
        prepare(tmp_path / "out", {"en": [bad]}, max_bad_rows=0, part_bytes=3000, workers=2)
    assert "bad.jsonl: line at byte" in caught.value.where
    assert not (tmp_path / "out").exists()


def test_an_error_keeps_what_is_done(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sources, options = mixed(material / "in")
    for limit in (0, 1):  # two rows are bad
        with pytest.raises(DataError):
            prepare(tmp_path / "out", sources, **options, max_bad_rows=limit)
    (left,) = tmp_path.glob(".out.preparing/*")
    scanned = {path: path.stat().st_mtime_ns for path in left.glob("scan/*")}
    assert scanned
    monkeypatch.setenv(VARIABLE, "data.encode:enospc")
    with pytest.raises(GrowLMError, match="disk is full"):
        prepare(tmp_path / "out", sources, **options, max_bad_rows=2)
    monkeypatch.delenv(VARIABLE)
    assert {path: path.stat().st_mtime_ns for path in scanned} == scanned
    with pytest.raises(DataError, match="More than 1 rows are bad"):  # what is done is judged anew
        prepare(tmp_path / "out", sources, **options, max_bad_rows=1)
    prepare(tmp_path / "out", sources, **options, max_bad_rows=2)
    assert folder_bytes(tmp_path / "out") == folder_bytes(material / "expected")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_workers_may_finish_one_task(tmp_path: Path):
    work = Work(tmp_path)
    with work.commit("scan", 0) as first, work.commit("scan", 0) as second:
        for folder in (first, second):
            (folder / "result.json").write_text("{}")
    assert work.result("scan", 0) == {}
    assert [path.name for path in (tmp_path / "scan").iterdir()] == ["000000"]
    for name in ("killed", "running"):
        (tmp_path / "scan" / f".000001.{name}").mkdir()
    os.utime(tmp_path / "scan" / ".000001.killed", (1, 1))
    work.sweep()
    assert {path.name for path in (tmp_path / "scan").iterdir()} == {"000000", ".000001.running"}


def test_a_worker_that_died_between_two_tasks_is_said(tmp_path: Path):
    worker = _Worker(Work(tmp_path))
    waiting: SimpleQueue[int] = SimpleQueue()
    waiting.put(0)
    os.kill(worker._process.pid, signal.SIGKILL)
    worker._process.wait()
    with pytest.raises(GrowLMError, match="worker of the preparation was killed"):
        worker.run("scan", waiting, lambda _: None)
    worker.close()


def test_another_plan_begins_anew(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sources, options = mixed(material / "in")
    options["vocab_size"] = 300
    monkeypatch.setenv(VARIABLE, "data.settle:enospc")
    with pytest.raises(GrowLMError, match="disk is full"):
        prepare(tmp_path / "out", sources, **options)
    monkeypatch.delenv(VARIABLE)
    prepare(tmp_path / "out", sources, **mixed(material / "in")[1])
    assert folder_bytes(tmp_path / "out") == folder_bytes(material / "expected")


def test_a_file_that_changes_after_the_start_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_jsonl(tmp_path / "text.jsonl", english(10))
    monkeypatch.setenv(VARIABLE, "data.scan:enospc")
    with pytest.raises(GrowLMError):
        prepare(tmp_path / "out", {"en": [path]}, vocab_size=300)
    monkeypatch.delenv(VARIABLE)
    (plan,) = tmp_path.glob(f".out.preparing/*/{PLAN}")
    write_jsonl(path, [*english(9), "another one"])
    with pytest.raises(DataError, match="changed while it was read"):
        run_task(Work(plan.parent), "scan", 0, lambda _: None)


def test_what_goes_out_of_a_step_goes_into_the_next(material: Path):
    manifest = Manifest.load(material / "expected")
    for source in manifest.sources.values():
        assert len(source.steps) >= 3
        for before, after in zip(source.steps, source.steps[1:], strict=False):
            assert (before.documents_out, before.bytes_out) == (after.documents_in, after.bytes_in)
        last = source.steps[-1]
        assert last.documents_out == sum(split.documents for split in source.splits.values())
        assert last.bytes_out == sum(split.bytes for split in source.splits.values())
    steps = {name: {step.name: step for step in source.steps} for name, source in manifest.sources.items()}
    assert sum(steps["en"]["read"].reasons.values()) == 2
    assert (manifest.sources["en"].duplicates, manifest.sources["zh"].duplicates) == (9, 1)
    near = steps["en"]["near duplicates"]
    assert (near.documents_in, near.documents_out) == (61, 60)
    assert "near duplicates" not in steps["rte"]
    assert manifest.sources["en"].licenses == {"own": 60}
    assert manifest.sources["chat"].licenses == {"CC0": 15}
    bad = (material / "expected" / "quarantine.jsonl").read_text().splitlines()
    assert ['"row": "{broken"' in line for line in bad] == [False, True]


def test_only_what_an_objective_learns_is_marked(material: Path):
    dataset = TokenDataset.open(material / "expected")
    tokenizer = Tokenizer.load(dataset.tokenizer_path)
    for source in ("rte", "chat"):
        for split in ("train", "valid"):
            stored = dataset.read(source, split, 0, dataset.tokens(source, split))
            assert stored.dtype == np.uint32
            ids, learnt = stored & (MARK - 1), stored >= MARK
            if source == "rte":
                signals = [tokenizer.special_ids[name] for name in SIGNALS]
                assert (np.isin(ids, signals) == learnt).all()
                assert (ids[1:][learnt[:-1]] == tokenizer.eos_id).all()
                assert learnt.sum() == dataset.manifest.sources[source].splits[split].documents
            else:
                answers = [text[-1] for text in tokenizer.decode(ids.tolist()).split(tokenizer.eos)[:-1]]
                marked = tokenizer.decode(ids[learnt].tolist())
                assert marked == "".join(f" {answer}{tokenizer.eos}" for answer in answers)


def test_propositions_about_one_text_are_on_one_side_and_so_is_the_text(tmp_path: Path):
    rows = propositions(40)
    ends = ("", "\n", " \r\n", "\ufeff\n")  # what stands behind a text makes no other text of it
    about = sorted({row["text"] for row in rows})
    texts = write_jsonl(tmp_path / "text.jsonl", [text + ends[i % 4] for i, text in enumerate(about)])
    signals = write_rows(tmp_path / "signals.jsonl", rows)
    sources = {"en": [texts], "rte": SourceOptions([signals], "signals")}
    manifest = prepare(tmp_path / "out", sources, vocab_size=300, validation_share=0.2)
    dataset = TokenDataset.open(tmp_path / "out")
    tokenizer = Tokenizer.load(dataset.tokenizer_path)

    def stored(source: str, split: str) -> list[str]:
        ids = dataset.read(source, split, 0, dataset.tokens(source, split)) & np.uint32(MARK - 1)
        return tokenizer.decode(ids.tolist()).split(tokenizer.eos)[:-1]

    for split in ("train", "valid"):
        about = {text.rpartition("\n")[0] for text in stored("rte", split)}
        assert about == {text.strip() for text in stored("en", split)}
        assert len(stored("rte", split)) == 2 * len(about) == manifest.sources["rte"].splits[split].documents


def test_what_two_files_say_the_opposite_of_is_left_out(tmp_path: Path):
    rows = propositions(20)
    opposite = [{**row, "signal": not row["signal"]} for row in rows[:6]]
    files = {
        "one": write_rows(tmp_path / "one.jsonl", [*rows, rows[0], rows[9]]),
        "two": write_rows(tmp_path / "two.jsonl", opposite + propositions(25)[-4:]),
    }
    sources = {name: SourceOptions([path], "signals") for name, path in files.items()}
    en = {"en": SourceOptions([write_jsonl(tmp_path / "en.jsonl", english(10))])}
    manifest = prepare(tmp_path / "out", {**sources, **en}, vocab_size=300, part_bytes=500)
    for name, before, after in (("one", len(rows), len(rows) - 6), ("two", 10, 4)):
        step = manifest.sources[name].steps[-1]
        assert (step.name, step.documents_in, step.documents_out) == ("contradictions", before, after)


def test_tokens_are_taken_as_they_are(material: Path, tmp_path: Path):
    first = TokenDataset.open(material / "expected")
    given = {split: first.read("en", split, 0, first.tokens("en", split)) for split in ("train", "valid")}
    ids = np.concatenate(list(given.values()))
    ends = np.flatnonzero(ids == first.manifest.tokenizer.eos_id) + 1
    ids.astype("<u2").tofile(tmp_path / "en.ds")
    ends.astype("<u8").tofile(tmp_path / "en.ds.index")
    manifest = prepare(
        tmp_path / "out",
        {"en": SourceOptions([tmp_path / "en.ds"], "tokens")},
        tokenizer=first.tokenizer_path,
        part_bytes=4000,
        validation_share=0.1,
    )
    again = TokenDataset.open(tmp_path / "out")
    assert manifest.sources["en"].kind == "text"
    taken = np.concatenate([again.read("en", s, 0, again.tokens("en", s)) for s in ("train", "valid")])
    expected = [piece.tobytes() for piece in np.split(ids, ends[:-1])]
    found = np.split(taken, np.flatnonzero(taken == first.manifest.tokenizer.eos_id)[:-1] + 1)
    assert sorted(piece.tobytes() for piece in found) == sorted(expected)
    splits = (first.manifest.sources["en"].splits, manifest.sources["en"].splits)
    of_text, of_tokens = (sum(split.bytes for split in each.values()) for each in splits)
    assert of_tokens == of_text
    assert [step.name for step in manifest.sources["en"].steps] == ["read", "exact duplicates"]


def test_contamination_is_found_in_tokens_as_in_text(tmp_path: Path):
    texts = english(30)
    text = write_jsonl(tmp_path / "text.jsonl", texts)
    questions = write_jsonl(tmp_path / "questions.jsonl", texts[:10])
    prepare(tmp_path / "first", {"en": [text]}, vocab_size=300)
    tokenizer = Tokenizer.load(tmp_path / "first" / "tokenizer.json")
    documents = [[*tokenizer.encode(each), tokenizer.eos_id] for each in texts]
    np.concatenate(documents).astype("<u2").tofile(tmp_path / "en.ds")
    np.cumsum([len(each) for each in documents]).astype("<u8").tofile(tmp_path / "en.ds.index")
    manifest = prepare(
        tmp_path / "out",
        {"text": [text], "tokens": SourceOptions([tmp_path / "en.ds"], "tokens")},
        tokenizer=tmp_path / "first" / "tokenizer.json",
        cleaning=Cleaning(decontaminate=[questions], quality=False, pii=True),
    )
    steps = {name: {step.name: step for step in source.steps} for name, source in manifest.sources.items()}
    assert steps["tokens"]["contamination"] == steps["text"]["contamination"]
    assert steps["tokens"]["contamination"].documents_out == 20
    planned = SourceOptions([tmp_path / "en.ds"], "tokens").plan()
    os.utime(tmp_path / "en.ds.index", (1, 1))
    assert SourceOptions([tmp_path / "en.ds"], "tokens").plan() != planned, "another index is another input"
    assert list(steps["tokens"]) == ["read", "contamination", "exact duplicates"]


def test_the_step_that_left_nothing_is_named(tmp_path: Path):
    path = write_jsonl(tmp_path / "en.jsonl", english(20))
    with pytest.raises(DataError, match="Source 'en' is empty") as caught:
        prepare(tmp_path / "out", {"en": SourceOptions([path], language="zh")}, vocab_size=300)
    assert "the step `language` left out the last 20 documents: en 20" in caught.value.why


def test_weights_decide_what_the_tokenizer_learns_from(tmp_path: Path):
    en = write_jsonl(tmp_path / "en.jsonl", english(40))
    zh = write_jsonl(tmp_path / "zh.jsonl", chinese(40))

    def learnt(weights: tuple[float | None, float | None], name: str) -> bytes:
        sources = {"en": SourceOptions([en], weight=weights[0]), "zh": SourceOptions([zh], weight=weights[1])}
        prepare(tmp_path / name, sources, vocab_size=330)
        return (tmp_path / name / "tokenizer.json").read_bytes()

    alone = prepare(tmp_path / "alone", {"en": [en]}, vocab_size=330)
    assert learnt((1.0, 0.0), "only en") == (tmp_path / "alone" / "tokenizer.json").read_bytes()
    assert learnt((1.0, 1.0), "both") == learnt((None, None), "unsaid")
    assert alone.tokenizer.hash != TokenDataset.open(tmp_path / "both").manifest.tokenizer.hash
    for weights in ((1.0, None), (0.0, 0.0), (-1.0, 2.0), (float("nan"), 1.0)):
        with pytest.raises(RecipeError, match="weight"):
            learnt(weights, "bad")


def test_a_store_gives_what_files_here_give(tmp_path: Path):
    store = pytest.importorskip("fsspec").filesystem("memory")
    here = write_jsonl(tmp_path / "en.jsonl", english(40))
    store.pipe("/prepared/en.jsonl", here.read_bytes())
    try:
        for name, path in (("here", here), ("there", "memory://prepared/en.jsonl")):
            prepare(tmp_path / name, {"en": [path]}, vocab_size=300, part_bytes=5000)
    finally:
        store.rm("/prepared", recursive=True)
    assert folder_bytes(tmp_path / "there") == folder_bytes(tmp_path / "here")
