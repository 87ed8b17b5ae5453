import gzip
import json
import pickle
from pathlib import Path

import pytest

from growlm.data.cleaning.contamination import CHARACTERS, MIN_CHARACTERS, MIN_WORDS, WORDS, Contamination
from growlm.data.cleaning.evaluation_sets import evaluation_files, items
from growlm.data.cleaning.units import LONG_TEXT
from growlm.errors import DataError
from tests.data.cleaning.real import documents, evaluation
from tests.data.texts import HAN, chinese, english

QUESTION = "which planet that has been seen by any spacecraft turns about its axis the slowest of all"
FRAGE = "下列行星之中已经被航天器观测过的并且绕自身的轴自转得最慢的那一颗是哪一颗呢"


def sets(folder: Path, **rows: object) -> Contamination:
    for name, row in rows.items():
        (folder / f"{name}.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    return Contamination.of([folder])


@pytest.mark.parametrize(
    ("question", "run", "join"), [(QUESTION.split(), WORDS, " "), (FRAGE, CHARACTERS, "")]
)
def test_a_text_with_a_whole_run_is_found_and_one_unit_less_is_not(
    tmp_path: Path, question: list[str], run: int, join: str
) -> None:
    found = sets(tmp_path, planets={"id": 7, "question": join.join(question), "label": "A"})
    for start in range(len(question) - run + 1):
        part = join.join(question[start : start + run])
        assert found.sets_in(f"unlike {part} 不同") == ["planets"]
        assert found.sets_in(f"unlike {join.join(question[start : start + run - 1])} 不同") == []


def test_case_punctuation_layout_and_labels_of_choices_do_not_count(tmp_path: Path) -> None:
    row = {
        "question": "Which planet is the slowest?",
        "choices": ["Venus, the second", "Mars, the fourth", "Io"],
    }
    found = sets(tmp_path, planets=row, other={"question": QUESTION})
    quoted = "WHICH PLANET is -- the slowest?\n(A) Venus, the second\n(B) Mars; the fourth.\n\nC. Io"
    assert found.sets_in(quoted) == ["planets"]
    assert found.sets_in(quoted + " " + QUESTION) == ["other", "planets"]


@pytest.mark.parametrize(("words", "least"), [(QUESTION.split(), MIN_WORDS), (list(FRAGE), MIN_CHARACTERS)])
def test_short_items_are_found_whole_and_shorter_ones_are_counted(
    tmp_path: Path, words: list[str], least: int
) -> None:
    join = " " if len(words[0]) > 1 else ""
    enough, less = join.join(words[:least]), join.join(words[: least - 1])
    assert sets(tmp_path, one={"q": enough}).sets_in(f"see {enough} there") == ["one"]
    assert sets(tmp_path, one={"q": enough}).sets_in(f"see {less} there") == []
    short = sets(tmp_path, one={"q": less})
    assert (short.items, short.short, short.sets_in(less)) == ((1,), (1,), [])


def test_the_longest_field_of_a_short_item_is_enough(tmp_path: Path) -> None:
    found = sets(
        tmp_path, one={"premise": " ".join(QUESTION.split()[:9]), "choices": ["it is far", "it is old"]}
    )
    assert found.sets_in("He said: " + " ".join(QUESTION.split()[:9])) == ["one"]


def test_a_quote_anywhere_in_a_long_text_is_found(tmp_path: Path) -> None:
    found, filler = sets(tmp_path, one={"q": QUESTION}), "so it goes on " * (LONG_TEXT // 14)
    for cut in range(LONG_TEXT - 100, LONG_TEXT, 20):
        assert found.sets_in(filler[:cut] + f" {QUESTION} " + filler) == ["one"]
    assert found.sets_in(filler * 2) == []


def test_every_format_gives_the_same_items(tmp_path: Path) -> None:
    rows = [["one two", "three, four"], ["五六", "seven\n8"]]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"x": a, "y": {"z": [b, 1]}}) for a, b in rows))
    (tmp_path / "b.json").write_text(json.dumps([{"q": a, "targets": {f" {b}": 1}} for a, b in rows]))
    (tmp_path / "c.csv").write_text('q,a\n"one two","three, four"\n五六,"seven\n8"\n', "utf-8")
    with gzip.open(tmp_path / "d.csv.gz", "wt", encoding="utf-8") as file:
        file.write((tmp_path / "c.csv").read_text("utf-8"))
    (tmp_path / "e.txt").write_text("one two\nthree, four\n\n\n五六\nseven\n", "utf-8")
    found = [
        [[text.strip() for text in item] for item in items(path)]
        for path in evaluation_files([tmp_path]).values()
    ]
    assert found == [rows] * 4 + [[rows[0], ["五六", "seven"]]]


def test_of_parquet_every_string_of_a_row_counts(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"q": "one two", "a": {"text": ["three", "four"], "n": 1}}, {"q": "五六", "a": None}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "mmlu.parquet")
    (files,) = evaluation_files([tmp_path]).items()
    assert files == ("mmlu", tmp_path / "mmlu.parquet")
    assert list(items(files[1])) == [["one two", "three", "four"], ["五六"]]


def test_saved_pickled_and_loaded_it_answers_the_same(tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    found = sets(tmp_path / "sets", en={"q": QUESTION}, zh={"q": FRAGE}, no={"q": "too short"})
    found.save(tmp_path / "runs")
    for again in (Contamination.load(tmp_path / "runs"), pickle.loads(pickle.dumps(found))):
        assert again.sets_in(QUESTION + FRAGE) == ["en", "zh"]
        assert (again.names, again.items, again.short) == (("en", "no", "zh"), (1, 1, 1), (0, 1, 0))


def test_texts_of_no_set_are_not_found(tmp_path: Path) -> None:
    found = sets(tmp_path, en={"q": " ".join(english(1))}, zh={"q": HAN})
    assert not any(
        found.sets_in(text) for text in [*english(50, seed=1), *chinese(50, seed=1), "", "x", "天"]
    )


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.jsonl", b"{", "An evaluation set is not JSON"),
        ("a.json.gz", b"no gzip", "An evaluation set cannot be read"),
        ("a.csv", b"\xff\xfe", "An evaluation set cannot be read"),
        ("a.parquet", b"PAR1", "A Parquet file cannot be read"),
        ("a.xlsx", b"", "There is no evaluation set here"),
    ],
)
def test_bad_sets_are_one_error_with_the_place(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        Contamination.of([tmp_path / name])
    assert caught.value.what == what
    assert name in caught.value.where


def test_two_sets_of_one_name_and_a_damaged_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(DataError, match="Two evaluation sets are named 'a'"):
        Contamination.of([tmp_path])
    with pytest.raises(DataError, match="cannot be read"):
        Contamination.load(tmp_path / "a.txt")


REAL = (
    "superglue/copa-val.jsonl",
    "superglue/rte-val.jsonl",
    "superglue/multirc-val.jsonl",
    "clue/ocnli-train-few.jsonl",
    "clue/cluewsc-test-public.jsonl",
    "knowledge/cmmlu-dev.jsonl.gz",
    "knowledge/mmlu-dev.jsonl.gz",
    "truthfulqa",
    "babi",
)


@pytest.fixture(scope="module")
def real() -> Contamination:
    return Contamination.of(evaluation(*REAL))


def test_every_item_of_the_real_sets_is_found_in_a_text_that_quotes_it(real: Contamination) -> None:
    files = evaluation_files(evaluation(*REAL))
    for name, number, short in zip(real.names, real.items, real.short, strict=True):
        texts = ["One asks: " + "\n".join(fields) + "\nThat is all." for fields in items(files[name])]
        assert len(texts) == number
        assert sum(name not in real.sets_in(text) for text in texts) == short
    assert sum(real.short) <= 0.01 * sum(real.items)


@pytest.mark.slow
@pytest.mark.parametrize(("corpus", "most"), [("en-books", 0.005), ("zh-modern", 0.005)])
def test_hardly_any_real_text_is_taken_for_a_quote(real: Contamination, corpus: str, most: float) -> None:
    texts = [bool(real.sets_in(text)) for text in documents(corpus, every=4)]
    assert sum(texts) <= most * len(texts)
