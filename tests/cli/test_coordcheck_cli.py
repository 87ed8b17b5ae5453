"""`growlm coordcheck`: its exit code is the verdict, and what it prints, draws and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

from growlm.testing.tiny import write_recipe
from tests.cli.run_cli import growlm

QUICK = ("--widths", "64,128", "--depths", "2,4", "--steps", 2, "--seeds", 2)


def test_a_recipe_passes_with_its_parametrization_and_fails_without(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.toml", tmp_path)
    enough = ("--widths", "64,256", "--depths", "2,8", "--steps", 2)
    passes = growlm("coordcheck", recipe, *enough, "--svg", tmp_path / "check.svg")
    assert (passes.code, passes.err) == (0, ""), passes.out
    assert "completep passes" in passes.out
    drawing = ElementTree.parse(tmp_path / "check.svg").getroot()
    words = [text.text for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert "stream, completep: flat" in words
    assert "stream, sp: follows the size" in words

    fails = growlm("coordcheck", recipe, *QUICK, "--parametrization", "sp", "--set", "model.tied=false")
    assert fails.code == 1
    assert "sp fails: outputs depend on d_model and n_layers" in fails.out


def test_json() -> None:
    done = growlm("coordcheck", *QUICK, "--optimizer", "muon", "--lr", 1e-3, "--json")
    found = json.loads(done.out)
    assert found["passed"] == (done.code == 0)
    assert (found["optimizer"], found["lr"], found["seeds"]) == ("muon", 1e-3, 2)
    assert [sweep["axis"] for sweep in found["sweeps"]] == ["d_model", "n_layers"]


def test_bad_input_is_one_message() -> None:
    for args, what in (
        (("--widths", "64,many"), "'64,many' is not a list of whole numbers"),
        (("--widths", "64,70"), "a width of 70 cannot have the ratios of stage 'check'"),
        (("--set", "model.tied=false"), "--set goes with a recipe"),
    ):
        done = growlm("coordcheck", *args)
        assert done.code == 2
        assert what in done.err
        assert "Traceback" not in done.err
