"""The growth certificate: old and new model on the same batch, before anything trains on.

It is stored in the manifest and in the record. A growth that was declared exact and is not within
tolerance stops the run, with the first layer that drifts named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from growlm.errors import GrowthError
from growlm.growth.apply import grow_rows, new_entries
from growlm.growth.operators import Growth
from growlm.model.decoder import Decoder
from growlm.model.parameters import parameter_table
from growlm.recipe.shape import ModelConfig

TOLERANCE = {"fp32": 1e-5, "fp64": 1e-10}
DTYPES = {"fp32": torch.float32, "fp64": torch.float64}

State = Mapping[str, Tensor]


def certify(growth: Growth, old: State, new: State, tokens: Tensor, targets: Tensor) -> dict[str, Any]:
    """Compare the two models on tokens and targets (B, T); the certificate as plain JSON types.

    Runs in the precision that the recipe asks for. An exact growth whose fp32 difference is above the
    tolerance is measured again in fp64, which tells rounding (deep or large logits) from a wrong growth.
    What fp64 cannot remove is the rounding of weights kept in fp32: see `_tolerance`.
    """
    certificate = _measure(growth, old, new, tokens, targets, growth.table.certify)
    if growth.exact and growth.table.certify == "fp32" and not within(certificate):
        in_fp32 = certificate["max_dlogit"]
        certificate = _measure(growth, old, new, tokens, targets, "fp64") | {"max_dlogit_fp32": in_fp32}
    return certificate | {"symmetry": symmetry_rank(growth, new)}


def within(certificate: Mapping[str, Any]) -> bool:
    """Whether the logits moved by no more than the tolerance."""
    return bool(certificate["max_dlogit"] <= certificate["tolerance"])


def require(certificate: Mapping[str, Any]) -> None:
    """GrowthError if the growth was declared exact and is not; it names the first layer that drifts."""
    if not certificate["exact"] or within(certificate):
        return
    worst = next((x for x in certificate["layers"] if x["drift"] > certificate["tolerance"]), None)
    raise GrowthError(
        f"the growth was declared exact but moved the logits by {certificate['max_dlogit']:.3g}",
        where=f"block {worst['layer']} (from {worst['from']}), drift {worst['drift']:.3g}"
        if worst
        else "the head",
        why=f"the tolerance in {certificate['precision']} is {certificate['tolerance']:g}",
        fix="the checkpoint before the growth is intact; please report this with the recipe",
    )


def _measure(
    growth: Growth, old: State, new: State, tokens: Tensor, targets: Tensor, precision: str
) -> dict[str, Any]:
    before, after = _Run(growth.old, old, precision), _Run(growth.new, new, precision)
    after.model.set_mask(growth.ramp, growth.ramp.value(0))
    before.evaluate(tokens, targets)
    after.evaluate(tokens, targets)
    moved = (after.logits[..., : growth.old.vocab_size] - before.logits).abs().max().item()
    return {
        "exact": growth.exact,
        "precision": precision,
        "tolerance": _tolerance(precision, old, before.logits),
        "max_dlogit": moved,
        "dloss": after.loss - before.loss,
        "loss_before": before.loss,
        "loss_after": after.loss,
        "layers": _layer_drift(growth, before.trace, after.trace),
        "gradient": gradient_map(growth, before.model, after.model),
        "tokens": tokens.numel(),
    }


def _tolerance(precision: str, weights: State, logits: Tensor) -> float:
    """1e-5 in fp32, 1e-10 in fp64; fp32 weights may differ by their rounding, relative to the logits."""
    if precision == "fp64" and any(w.dtype != torch.float64 for w in weights.values()):
        return TOLERANCE["fp32"] * max(1.0, logits.abs().max().item())
    return TOLERANCE[precision]


class _Run:
    """One model, one forward and backward pass."""

    def __init__(self, config: ModelConfig, state: State, precision: str) -> None:
        self.model = Decoder(config).to(DTYPES[precision])
        self.model.load_state_dict(dict(state))

    def evaluate(self, tokens: Tensor, targets: Tensor) -> None:
        """Fill `trace`, `logits`, `loss` and the gradients."""
        self.trace: list[Tensor] = []
        with torch.no_grad():
            self.logits = self.model.logits(tokens, self.trace)
        loss = self.model.loss(tokens, targets)
        loss.backward()
        self.loss = loss.item()


def _layer_drift(growth: Growth, before: list[Tensor], after: list[Tensor]) -> list[dict[str, Any]]:
    """Largest change of the old part of the stream after each old block and what was put behind it.

    Zero for every exact growth. Where blocks were stacked at the end, new blocks are compared with the
    last old one.
    """
    d = growth.maps["d_model"]
    kept = torch.from_numpy(np.flatnonzero(~d.is_new))
    source = torch.from_numpy(d.source[~d.is_new])
    drifts = []
    reached = -1
    for i, layer in enumerate(growth.layers):
        reached = reached if layer.new else layer.source
        drift = (after[i].index_select(-1, kept) - before[reached].index_select(-1, source)).abs().max()
        drifts.append({"layer": i, "from": layer.source, "drift": drift.item()})
    return drifts


def gradient_map(growth: Growth, before: Decoder, after: Decoder) -> dict[str, Any]:
    """Gradients of the grown model against the rule that grows the moments (`grow_rows`).

    `max_error` is the largest deviation over entries that come from old ones, relative to the largest
    old gradient; `frozen_share` is the share of new entries whose gradient is exactly zero.
    """
    old = {n: p.grad for n, p in before.named_parameters() if p.grad is not None}
    new = {n: p.grad for n, p in after.named_parameters() if p.grad is not None}
    rule = replace(growth, table=growth.table.model_copy(update={"moments": "grow"}))
    scale = max(g.abs().max().item() for g in old.values())
    worst, worst_error, fresh, frozen = "", 0.0, 0, 0
    for name, parameter in parameter_table(growth.new).items():
        entries = torch.from_numpy(new_entries(growth, parameter, 0, parameter.shape[0]))
        if parameter.layer is not None and growth.layers[parameter.layer].new:
            entries = torch.ones_like(new[name], dtype=torch.bool)
        fresh += int(entries.sum())
        frozen += int((new[name][entries] == 0).sum())
        expected = grow_rows(
            rule, parameter, "exp_avg", 0, parameter.shape[0], lambda n, a, b: old[n][a:b], 0
        )
        error = ((new[name] - expected).masked_fill(entries, 0).abs().max() / scale).item()
        if error >= worst_error:
            worst, worst_error = name, error
    return {"max_error": worst_error, "worst": worst, "frozen_share": frozen / fresh if fresh else 0.0}


def symmetry_rank(growth: Growth, new: State) -> dict[str, dict[str, int]]:
    """Per axis with copies: units, and how many are distinguishable by their weights.

    Two copies whose rows and columns are equal in every tensor get equal gradients for ever and never
    part ways (docs/growth.md). `distinct` < `units` means that. A key/value unit is told apart
    by its own weights or by those of the queries it serves.
    """
    axes = {a for a, m in growth.maps.items() if len(np.unique(m.source[~m.is_new])) < int((~m.is_new).sum())}
    digests = {axis: _unit_digests(growth, axis, new) for axis in axes | ({"q"} if "kv" in axes else set())}
    if "kv" in axes:
        E = growth.new.head_dim
        served = np.array(digests["q"]).reshape(growth.new.n_kv_heads, -1)
        digests["kv"] = [d + b"".join(served[i // E].tolist()) for i, d in enumerate(digests["kv"])]
    return {a: {"units": len(digests[a]), "distinct": len(set(digests[a]))} for a in sorted(axes)}


def _unit_digests(growth: Growth, axis: str, new: State) -> list[bytes]:
    """One hash per unit of an axis, over its rows and columns in every tensor."""
    hashes = [xxhash.xxh3_128() for _ in range(len(growth.maps[axis]))]
    for name, parameter in parameter_table(growth.new).items():
        for dim, a in enumerate(parameter.axes):
            if a == axis:
                units = new[name].detach().movedim(dim, 0).contiguous().numpy()
                for h, unit in zip(hashes, units, strict=True):
                    h.update(unit.tobytes())
    return [h.digest() for h in hashes]
