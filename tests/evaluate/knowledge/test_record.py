"""ReCoRD is asked and scored as by the harness's own functions, of its task and of its copy of T5's."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("lm_eval")

import lm_eval.tasks
from lm_eval.tasks._yaml_loader import load_yaml

from growlm.evaluate import knowledge
from growlm.evaluate.knowledge.record import choices, f1, prompt, results, target, words

DOCUMENTS: list[dict[str, Any]] = [
    {
        "passage": "Ann met Bob in the Hague.\n@highlight\nBob ran\n@highlight\nAnn did not\n",
        "query": "@placeholder left",
        "entities": ["The Hague", "Ann", "Bob", "Ann", "Bob Jr."],
        "answers": ["Bob Jr", "bob"],
    },
    {"passage": "C, B.", "query": "I saw @placeholder", "entities": ["C", "B"], "answers": ["the B!", "C"]},
]


def theirs(name: str) -> Any:
    path = Path(lm_eval.tasks.__file__).parent / "super_glue" / "record" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"record_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("doc", DOCUMENTS)
def test_prompt_and_choices(doc: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What they import of transformers is for their scores only."""
    path = ["transformers.data.metrics", "transformers.data.metrics.squad_metrics"]
    for name in path:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules[path[0]], "squad_metrics", sys.modules[path[1]], raising=False)
    util = theirs("util")
    (made,) = util.process_docs(util.datasets.Dataset.from_list([doc]))
    assert prompt(doc) == util.doc_to_text(made)
    assert choices(doc) == util.doc_to_choice(made)
    assert target(doc) == util.doc_to_target(made)


@pytest.mark.parametrize("doc", DOCUMENTS)
def test_exact_match_and_f1(doc: dict[str, Any]) -> None:
    t5 = theirs("t5_utils")
    for best, entity in enumerate(sorted(set(doc["entities"]))):
        answers = [(-1.0 if i == best else -2.0, False) for i in range(len(choices(doc)))]
        pairs = [(entity, f"0_{answer}") for answer in doc["answers"]]
        found = results(doc, answers)
        assert found["em"] == max(t5.squad_em_agg([pair]) for pair in pairs)
        assert found["f1"] == pytest.approx(t5.squad_f1_agg(pairs))


def test_answers_of_articles_alone() -> None:
    """As SQuAD's script: nothing is like nothing, and not like anything else."""
    assert (f1(words("The"), words("a")), f1(words("The"), words("Bob")), words("The U.S.")) == (1, 0, ["us"])


def test_the_task_is_theirs_but_for_its_functions() -> None:
    """So `--hub` finds its data too."""
    folders = (Path(lm_eval.tasks.__file__).parent / "super_glue" / "record", Path(knowledge.__file__).parent)
    told = [load_yaml(folders[0] / "default.yaml", resolve_func=False)]
    told.append(load_yaml(folders[1] / "tasks" / "superglue" / "growlm_record.yaml", resolve_func=False))
    functions = {"doc_to_text", "doc_to_target", "doc_to_choice", "process_docs", "process_results"}
    theirs, ours = ({k: v for k, v in each.items() if k not in {*functions, "task", "tag"}} for each in told)
    assert ours == theirs
