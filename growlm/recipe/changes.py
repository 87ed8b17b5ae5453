"""What may change in a recipe while its run exists: free, with a flag, or never.

Free: nothing that was trained depends on it. Flag: the run goes on differently, which needs
`--accept-changes` and is logged. Forbidden: the weights or the data order so far would no longer
follow from the recipe. The batch of a step is a function of the table of stages, so what a begun stage
draws is forbidden too: a change of batch, context or mixture goes into a new stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from growlm.recipe.keys import Key, leaves, show_key
from growlm.recipe.schema import GrowthTable, Recipe

Class = Literal["free", "flag", "forbidden"]

# The first pattern that fits a key outside `stages` decides.
RUN: tuple[tuple[str, Class], ...] = (
    ("name", "free"),
    ("seed", "forbidden"),
    ("init", "free"),  # what lies there is compared on its own
    ("model.*", "forbidden"),
    ("data.path", "free"),  # the data's fingerprint is compared on its own
    ("data.document_mask", "flag"),
    ("data.exhausted", "free"),
    ("objectives.*", "flag"),
    ("data.mixture*", "free"),  # compared stage by stage, as each of them draws it
    ("optim.name", "forbidden"),
    ("optim.*", "flag"),
    ("schedule.*", "flag"),
    ("guard.*", "flag"),
    ("eval.*", "free"),
    ("checkpoint.*", "free"),
    ("train.device", "free"),
    ("train.precision", "flag"),
    ("train.threads", "flag"),
    ("train.deterministic", "flag"),
    ("timeouts.*", "free"),
    ("budget.*", "free"),
)

# The same for a field of a stage that is past, current or still to come.
STAGE: tuple[tuple[str, tuple[Class, Class, Class]], ...] = (
    ("name", ("flag", "flag", "free")),
    ("tokens", ("forbidden", "flag", "flag")),  # to come or not: the schedule ends with the last stage
    ("lr", ("forbidden", "flag", "free")),
    ("lr_policy", ("forbidden", "flag", "flag")),
    ("batch_size", ("forbidden", "forbidden", "flag")),
    ("micro_batch_size", ("free", "flag", "free")),
    ("seq_len", ("forbidden", "forbidden", "flag")),
    ("objectives", ("forbidden", "forbidden", "free")),
    ("mixture*", ("forbidden", "forbidden", "free")),
    ("layout.*", ("free", "free", "free")),
    ("*", ("forbidden", "forbidden", "flag")),  # shape and growth
)


@dataclass(frozen=True)
class Change:
    """One key whose value differs, and what that means for the run."""

    key: str
    old: Any
    new: Any
    cls: Class


def recipe_diff(old: Recipe, new: Recipe, current_stage: int) -> list[Change]:
    """Every difference between the recipe a run was started with and a new one, in the recipe's order.

    `current_stage` is the index of the stage in training. Writing out a value that was implied (such as
    `n_kv_heads` equal to `n_heads`) is no difference. `old` or `new` is None where a key is absent.
    """
    before, after = _effective(old), _effective(new)
    other_units = _units(old) != _units(new)
    changes = []
    for key in [*before, *(key for key in after if key not in before)]:
        if key not in before or key not in after or before[key] != after[key]:
            moves_all = other_units and key[0] == "stages" and key[-1] == "seq_len"
            cls = "forbidden" if moves_all else classify(key, current_stage)
            changes.append(Change(_show(key, old, new), before.get(key), after.get(key), cls))
    return changes


def classify(key: Key, current_stage: int) -> Class:
    """The class of a change of `key` while stage `current_stage` trains."""
    if key[0] != "stages":
        return next(cls for pattern, cls in RUN if fnmatchcase(show_key(key), pattern))
    index = int(key[1])
    when = 0 if index < current_stage else 1 if index == current_stage else 2
    name = ".".join(map(str, key[2:]))
    return next(classes[when] for pattern, classes in STAGE if fnmatchcase(name, pattern))


def _units(recipe: Recipe) -> tuple[int, int]:
    """The shortest and the longest context of all stages: the order of the whole run follows from them."""
    lengths = [stage.seq_len for stage in recipe.stages]
    return min(lengths), max(lengths)


def _effective(recipe: Recipe) -> dict[Key, Any]:
    """The leaves of a recipe with what every stage implies or inherits filled in."""
    data = recipe.model_dump()
    for index, stage in enumerate(data["stages"]):
        config = recipe.model_config_of(index)
        stage["n_kv_heads"], stage["vocab_size"] = config.n_kv_heads, config.vocab_size
        stage["micro_batch_size"] = stage["micro_batch_size"] or stage["batch_size"]
        stage["mixture"] = recipe.mixture_of(index)
        stage["growth"] = _growth(recipe.growth_of(index))
    return leaves(data)


def _growth(table: GrowthTable) -> dict[str, Any]:
    """The growth settings; what repeats the operator's own choice counts as unset."""
    settings = table.model_dump()
    for key in ("noise", "split", "moments"):
        if settings[key] == getattr(table.model_copy(update={key: None}), f"effective_{key}"):
            settings[key] = None
    return settings


def _show(key: Key, old: Recipe, new: Recipe) -> str:
    owner = old if key[0] != "stages" or int(key[1]) < len(old.stages) else new
    return show_key(key, {"stages": [{"name": stage.name} for stage in owner.stages]})
