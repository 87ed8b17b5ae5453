"""Results as one page: what is measured beside what is published, nothing hidden, nothing run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser import draw, needs_chromium
from fake_results import context, knowledge, model, rules, write_result

from growlm.errors import DataError, RecipeError
from growlm.evaluate.published import published
from growlm.report.evaluation import write_page
from growlm.report.evaluation.gather import evaluation
from growlm.report.evaluation.table import print_evaluation

STAGES = [("small", 500_000, 1e-7), ("wide", 1_000_000, 4e-7), ("deep", 1_500_000, 1.3e-6)]
ATTACK = "</script><script>document.title='pwned'</script><img src=x onerror=document.title='pwned'>"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("eval")
    for i, (stage, tokens, cost) in enumerate(reversed(STAGES)):
        grown = model(f"demo/{stage}", stage=stage, tokens=tokens, cost=cost)
        write_result(out, "knowledge", grown, knowledge(0.3 - 0.02 * i))
        write_result(out, "iq", grown, rules(0.08 - 0.03 * i))
    alone = model("another", cost=None)
    limited = knowledge(0.5, notes=["the first 100 items: not comparable"])
    write_result(out, "knowledge", alone, limited[:3])
    write_result(out, "iq", alone, rules(0.4, cut=3, failed=1))
    for name, slope in (("xpos", 0.02), ("rope", 0.9)):
        facts = {"trained": 256, "positions": name, "source": "en", "windows": 64}
        write_result(out, "context", model(name), context(256, slope), **facts)
    return out


def test_rows_are_our_models_stage_by_stage_then_what_is_published(results: Path) -> None:
    groups = {group["name"]: group for group in evaluation(results)["groups"]}
    assert list(groups) == ["open-llm", "iq/rules"]
    for name, first in (("open-llm", "Llama-2 13B"), ("iq/rules", "GLM-130B")):
        rows = groups[name]["rows"]
        assert [row["name"] for row in rows if row["ours"]] == [
            "another",
            "demo/small",
            "demo/wide",
            "demo/deep",
        ]
        assert [row["run"] for row in rows[:4]] == [None, "demo", "demo", "demo"]
        assert rows[4]["name"] == first
    assert next(c["task"] for c in groups["open-llm"]["columns"]) == "open_llm"
    printed = {row["name"]: row["cells"] for row in groups["iq/rules"]["rows"] if not row["ours"]}
    for model_name, value in published("counting").items():
        assert printed[model_name]["counting exact_match"] == {"value": value}


def test_every_cell_says_how_sure_it_is_and_what_is_wrong_with_it(results: Path) -> None:
    group = evaluation(results)["groups"][1]
    assert group["notes"] == [
        "3 of 148 prompts did not fit the context and lost their beginning",
        "1 of 148 items were not answered; they count as wrong",
        "3 of 300 prompts did not fit the context and lost their beginning",
        "1 of 300 items were not answered; they count as wrong",
    ]
    row = next(row for row in group["rows"] if row["name"] == "another")
    assert [cell["marks"] for cell in row["cells"].values()] == [[1, 2], [3, 4], [3, 4]]
    for cell in row["cells"].values():
        assert 0 <= cell["low"] < cell["value"] < cell["high"] <= 1
    assert [(c["items"], c["shots"], c["chance"]) for c in group["columns"]] == [
        (148, 0, 0),
        (300, 4, 0),
        (300, 4, 0),
    ]


def test_models_whose_items_differ_are_told_apart(tmp_path: Path) -> None:
    few = [s for s in rules(0.5) if s.task == "counting"]
    write_result(tmp_path, "iq", model("few"), [type(few[0])(**{**vars(few[0]), "items": 10})])
    write_result(tmp_path, "iq", model("all"), few)
    (group,) = evaluation(tmp_path)["groups"]
    assert group["columns"][0]["items"] is None
    assert group["columns"][0]["shots"] == 0


def test_a_run_that_has_trained_on_is_two_rows(tmp_path: Path) -> None:
    """With the costs of its own scores each."""
    write_result(tmp_path, "iq", model("x", tokens=1_000, cost=1e-7), rules(0.5))
    write_result(tmp_path, "knowledge", model("x", tokens=2_000, cost=2e-7), knowledge(0.5))
    write_result(tmp_path, "context", model("x", tokens=2_000, cost=2e-7, identity="1"), context(256, 0.0))
    data = evaluation(tmp_path)
    assert [(m["tokens"], m["kinds"]) for m in data["models"]] == [
        (1_000, ["iq"]),
        (2_000, ["context", "knowledge"]),
    ]
    rows = {g["name"]: [(r["name"], r["zettaflops"]) for r in g["rows"] if r["ours"]] for g in data["groups"]}
    assert rows == {
        "iq/rules": [("x at 1,000 tokens, 1,060,000 parameters", 1e-7)],
        "open-llm": [("x at 2,000 tokens, 1,060,000 parameters", 2e-7)],
    }


def test_the_terminal_says_what_published_rows_are(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_evaluation(evaluation(results))
    printed = capsys.readouterr().out
    for group in evaluation(results)["groups"]:
        for note in group["published"]:
            assert note[:60] in printed


@needs_chromium
@pytest.mark.parametrize("width", [500, 1280])
def test_the_page_shows_tables_plots_and_contexts(results: Path, width: int) -> None:
    drawn = draw(write_page(results), width=width)
    assert drawn.console == []
    for text in (
        "Open LLM leaderboard",
        "stage by stage",
        "Published, arXiv:2309.03852",
        "not comparable",
        "≈ 12.6",
    ):
        assert text in drawn.body
    assert drawn.count(r'<g class="point ') == (3 + 9) + (
        3 + 3
    )  # demo's stages and what has a published cost
    assert drawn.count(r'<polyline class="line s\d') == 2 + 2  # demo's path in two plots, two contexts
    for wrong in ("undefined", "NaN", "[object", "Infinity"):
        assert wrong not in drawn.body
    assert (results / "context.svg").read_text("utf-8").startswith("<svg")


@needs_chromium
def test_names_stay_text_and_the_page_asks_nobody(tmp_path: Path) -> None:
    write_result(tmp_path, "iq", model("x"), rules(0.3, notes=[ATTACK]))
    page = write_page(tmp_path)
    drawn = draw(page)
    assert "<title>Evaluation</title>" in drawn.dom
    assert "&lt;img src=x" in drawn.body
    assert not re.search(r"https?://(?!www\.w3\.org)", drawn.body.replace("https://arxiv.org", ""))


def test_no_results_and_damaged_ones_are_said(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no results"):
        write_page(tmp_path)
    write_result(tmp_path, "iq", model("x"), rules(0.3)).write_text("{")
    with pytest.raises(DataError, match=r"no result of an evaluation[\s\S]*delete it"):
        write_page(tmp_path)
