"""The page of operators, made from them: `python -m growlm.growth.table > docs/operators.md`."""

# ruff: noqa: E501 (Markdown)

from __future__ import annotations

from growlm.growth.depth import DEPTH, Depth
from growlm.growth.width import WIDTH, Width
from growlm.recipe.schema import GrowthTable

AXES = ("d_model", "heads", "head_dim", "d_ff")

SHOWN = {"exact": "exact", "norm": "norm", "no": "not", None: "–"}

STATE = {
    "grow": "follows the gradient",
    "asymmetric": "zero for copies, with a clock of their own",
    "reset": "restarted",
}

HEAD = """\
# Operators

Every row can be chosen in a recipe (`[stages.growth]`), in `growlm grow` and in `growlm.grow`. This page is made from the
code by `python -m growlm.growth.table`, and each word in it is tested: exact operators to 1e-10 in fp64 for both kinds of
norm, the others against their published formula (`tests/growth/test_width.py`, `test_depth.py`, `test_head_dim.py`).

- **exact**: the grown model gives the same logits. Where a norm counts zeros or means, its ε is rescaled with its gain, so
  nothing is left "exact up to ε".
- **norm**: activations keep their root mean square, the function changes.
- **not**: neither. **–**: the operator has no rule for this axis and refuses it.

"Follows the gradient" is the dual-scale rule of [growth.md](growth.md#optimizer-state), for AdamW's two moments and for
Muon's momentum. What is new starts from zero with a step count of its own; `moments` in the recipe overrides the last
column.
"""

EXCEPTIONS = """\
`zero` refuses `d_model` under LayerNorm (`lemon` is exact there), and head_dim where each head has a norm (Qwen3); nothing
takes head_dim where only a part of it is rotated (GPT-NeoX). `clone` takes `d_model` by whole multiples. `staged` grows
every width by the same whole factor. `rms` is exact at a doubling. `identity` is refused for gated families: behind a
gain of zero a gated layer has no gradient. Copies that can never part ways are refused unless `force = true`; in new
blocks that do nothing yet, the rows of copies get noise of their own.
"""

OTHERS = """\
## What else can grow

| what | how | preserves | optimizer state | source |
|---|---|---|---|---|
| vocabulary | `vocab_size` of the stage: new rows are fresh, their logits get log(mask) over `ramp_steps` | exact for old tokens | new rows restart | MSG, 2305.02869 |
| sequence length | `seq_len` of the stage; rotary positions need nothing, learned ones get new rows by `max_positions` | exact | kept | GrowLength, 2310.00576 |
| two or more models into one | `growlm grow A --fuse B`: their blocks side by side, zero between them | the function, if the models are equal; else not, and its certificate compares it with the mean of their logits | restarted | Deep Fusion, 2306.11903 |
| stage lengths | `schedule.prop_alpha`: stage i trains in proportion to i^alpha | – | – | MIDAS, 2409.19044 |
"""


def table_of_operators() -> str:
    """The whole page, as Markdown."""
    header = ["| operator | d_model | heads | head_dim | d_ff | optimizer state | source |", "|" + "---|" * 7]
    rows = [_width_row(name, operator) for name, operator in WIDTH.items()]
    depth_header = ["| depth | layers | optimizer state of new blocks | source |", "|" + "---|" * 4]
    depth_rows = [
        f"| `{name}` | {'exact' if d.exact else 'not'} | {_state_of_new_blocks(d)} | {d.source} |"
        for name, d in DEPTH.items()
    ]
    return "\n".join(
        [
            HEAD,
            "## Width\n",
            *header,
            *rows,
            "",
            EXCEPTIONS,
            *_meanings({name: w.doc for name, w in WIDTH.items()}),
            "\n## Depth\n",
            *depth_header,
            *depth_rows,
            "",
            *_meanings({name: d.doc for name, d in DEPTH.items()}),
            "",
            OTHERS.rstrip(),
        ]
    )


def _state_of_new_blocks(depth: Depth) -> str:
    layers = depth.layers(4, 6, GrowthTable.model_validate({}), [0.0] * 4)
    return "copied" if all(layer.keep_moments for layer in layers) else "restarted"


def _width_row(name: str, operator: Width) -> str:
    grades = " | ".join(SHOWN[operator.preserves.get(axis)] for axis in AXES)
    state = STATE[GrowthTable.model_validate({"operator": name}).effective_moments]
    return f"| `{name}` | {grades} | {state} | {operator.source} |"


def _meanings(docs: dict[str, str]) -> list[str]:
    return [f"- `{name}`: {doc}" for name, doc in docs.items()]


if __name__ == "__main__":
    print(table_of_operators())
