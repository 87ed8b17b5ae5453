"""The model card: what a model is, how it was grown and certified, how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from growlm.convert.dialect import Dialect
from growlm.data.card import markdown
from growlm.model.parameters import n_parameters
from growlm.recipe.schema import Recipe
from growlm.recipe.shape import ModelConfig

_LOAD = """\
```python
{more}from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")
ids = tokenizer("Once upon a time", return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids, max_new_tokens=40)[0]))
```
"""


def model_card(
    name: str,
    config: ModelConfig,
    dialect: Dialect,
    *,
    recipe: Recipe | None,
    trained: Mapping[str, Any],
    lineage: Sequence[Mapping[str, Any]],
    data: Mapping[str, Any] | None,
) -> str:
    """README.md of an exported model, as Markdown.

    `trained` has the manifest's step, tokens, flops and train_seconds; `lineage` its growths, oldest first;
    `data` the facts of the data card.
    """
    parts = [
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- growlm\n---",
        f"# {name}",
        f"A `{config.family}` model of {n_parameters(config) / 1e6:.4g} M parameters, exported by GrowLM as "
        f"`{dialect.model_type}`.",
        "## Shape\n\n" + _shape(config),
        "## Training\n\n" + _training(recipe, trained),
        "## Growth\n\n" + _growths(lineage),
        *([] if data is None else [markdown(data, level=2).rstrip()]),
        "## How to load it\n\n" + _loading(name, dialect),
    ]
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _shape(config: ModelConfig) -> str:
    names = ("d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff", "vocab_size", "tied")
    return _table(names, [[getattr(config, name) for name in names]])


def _training(recipe: Recipe | None, trained: Mapping[str, Any]) -> str:
    if not trained["step"]:
        return "None by GrowLM: these are the weights that it was given."
    said = "{step} steps on {tokens:,} tokens, {flops:.3g} FLOPs, {hours:.1f} hours.".format(
        **trained, hours=trained["train_seconds"] / 3600
    )
    if recipe is None:
        return f"{said} Its recipe is not known here."
    if recipe.init is not None:
        said += f" It started from the weights of `{Path(recipe.init).name}`, whose data is not in this card."
    columns = ("d_model", "n_layers", "n_heads", "d_ff", "seq_len", "batch_size", "tokens")
    rows = [[s.name, *(getattr(s, column) for column in columns)] for s in recipe.stages]
    mixture = ", ".join(f"{source} {weight:g}" for source, weight in recipe.data.mixture.items())
    return f"{said}\n\n{_table(('stage', *columns), rows)}\n\nData (sources and weights): {mixture}."


def _growths(lineage: Sequence[Mapping[str, Any]]) -> str:
    if not lineage:
        return "None by GrowLM."
    head = ("step", "from", "to", "width", "depth", "certificate", "max abs dlogit", "dloss")
    return _table(head, [_growth(entry) for entry in lineage])


def _growth(entry: Mapping[str, Any]) -> list[Any]:
    c = entry.get("certificate", {})
    ends = [f"{e['n_layers']} x {e['d_model']}" for e in (entry["from"], entry["to"])]
    exact = "exact" if c.get("exact") else "not exact by design"
    numbers = [f"{c[key]:.3g}" if key in c else "-" for key in ("max_dlogit", "dloss")]
    kind = f"{exact}, {c.get('kind', 'full')}, {c.get('precision', '-')}"
    return [entry.get("step", "-"), *ends, entry["operator"], entry["depth"], kind, *numbers]


def _loading(name: str, dialect: Dialect) -> str:
    if dialect.native or dialect.name == "growlm":
        note = "" if dialect.native else "Its class comes with GrowLM: `pip install 'growlm[hf]'`.\n\n"
        return note + _LOAD.format(name=name, more="" if dialect.native else "import growlm.hf\n")
    return (
        f"transformers has no class for `{dialect.model_type}`, and this folder brings no code along. "
        f"GrowLM reads it: `growlm import {name} OUT`; other software may know it."
    )
