"""The growth certificate: old and new model on the same batch, before anything trains on.

It is stored in the manifest and in the record. A growth that was declared exact and is not within
tolerance stops the run, with the first layer that drifts named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from growlm.errors import GrowthError
from growlm.growth.apply import grow_rows, new_entries
from growlm.growth.operators import Growth
from growlm.growth.symmetry import symmetry_rank
from growlm.growth.weights import MemoryWeights
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
    What fp64 cannot remove is the rounding of weights kept in fp32: see `tolerance`.
    """
    certificate = _measure(growth, old, new, tokens, targets, growth.table.certify)
    if growth.exact and growth.table.certify == "fp32" and not within(certificate):
        in_fp32 = certificate["max_dlogit"]
        certificate = _measure(growth, old, new, tokens, targets, "fp64") | {"max_dlogit_fp32": in_fp32}
    symmetry = symmetry_rank(growth, MemoryWeights(growth.new, new))
    return {"kind": "full"} | certificate | {"symmetry": symmetry}


def within(certificate: Mapping[str, Any]) -> bool:
    """Whether logits and loss, or what was probed of the weights, moved by no more than the tolerance."""
    return all(change <= certificate["tolerance"] for change in _moved(certificate))


def require(certificate: Mapping[str, Any]) -> None:
    """GrowthError if the growth was declared exact and is not; it names the first layer that drifts."""
    if not math.isfinite(sum(_moved(certificate))):
        raise GrowthError(
            "the old or the grown model gives logits that are not numbers",
            fix="the checkpoint before the growth is kept; look at its losses with `growlm report`",
        )
    if not certificate["exact"] or within(certificate):
        return
    worst = next((x for x in certificate["layers"] if x["drift"] > certificate["tolerance"]), None)
    moved = (
        f"moved the logits by {certificate['max_dlogit']:.3g}"
        if "max_dlogit" in certificate
        else (f"{certificate['worst']} is not what it should be, by {certificate['max_error']:.3g}")
    )
    raise GrowthError(
        f"the growth was declared exact but {moved}",
        where=f"block {worst['layer']} (from {worst['from']}), drift {worst['drift']:.3g}"
        if worst
        else "the head",
        why=f"the tolerance in {certificate['precision']} is {certificate['tolerance']:g}",
        fix="the checkpoint before the growth is intact; please report this with the recipe",
    )


def _moved(certificate: Mapping[str, Any]) -> list[float]:
    """What has to be small: of a passage through both models, or (`sampled`) of the weights alone."""
    measured = (certificate.get(key) for key in ("max_dlogit", "dloss", "max_error"))
    return [abs(value) for value in measured if value is not None]


def _measure(
    growth: Growth, old: State, new: State, tokens: Tensor, targets: Tensor, precision: str
) -> dict[str, Any]:
    """Both models on one sequence after the other, so that only one (T, V) of logits is held for each."""
    before, after = _model(growth.old, old, precision), _model(growth.new, new, precision)
    after.set_mask(growth.ramp, growth.ramp.value(0))
    epsilon = max(torch.finfo(w.dtype).eps for w in old.values())
    moved = largest = 0.0
    losses = np.zeros(2)
    drift = np.zeros(growth.new.n_layers)
    for x, y in zip(tokens.split(1), targets.split(1), strict=True):
        with torch.no_grad():
            streams: tuple[list[Tensor], list[Tensor]] = ([before.embed(x)], [])
            was, now = before.logits(x, streams[0]), after.logits(x, streams[1])
        change = (now[..., : growth.old.vocab_size] - was).abs().max().item()
        moved = float(np.maximum(moved, change))  # unlike max, it keeps a NaN
        largest = max(largest, was.abs().max().item())
        drift = np.maximum(drift, _layer_drift(growth, *streams))
        losses += [_backward(model, x, y, len(tokens)) for model in (before, after)]
    return {
        "exact": growth.exact,
        "precision": precision,
        "tolerance": tolerance(growth, precision, epsilon, largest),
        "max_dlogit": moved,
        "dloss": float(losses[1] - losses[0]),
        "loss_before": float(losses[0]),
        "loss_after": float(losses[1]),
        "layers": [
            {"layer": i, "from": layer.source, "drift": float(drift[i])}
            for i, layer in enumerate(growth.layers)
        ],
        "gradient": gradient_map(growth, before, after),
        "tokens": tokens.numel(),
    }


def tolerance(growth: Growth, precision: str, epsilon: float, largest_logit: float) -> float:
    """How much logits may move: 1e-5 in fp32, 1e-10 in fp64; `epsilon` is that of the stored weights.

    Weights that were scaled carry the rounding of their storage into the passes: unless every factor of the
    growth is a power of two, the tolerance is relative to the largest logit, 1e-5 for fp32 in fp64 and four
    times the dtype's epsilon for 16 bit.
    """
    scale = max(1.0, largest_logit)
    if growth.scales and epsilon > torch.finfo(torch.float32).eps:
        return 4 * epsilon * scale
    if precision == "fp64" and growth.rounds and epsilon > torch.finfo(torch.float64).eps:
        return TOLERANCE["fp32"] * scale
    return TOLERANCE[precision]


def _model(config: ModelConfig, state: State, precision: str) -> Decoder:
    model = Decoder(config).to(DTYPES[precision])
    model.load_state_dict(dict(state))
    return model


def _backward(model: Decoder, x: Tensor, y: Tensor, sequences: int) -> float:
    """Add the gradients of one sequence's share of the mean loss; that share."""
    loss = model.loss(x, y) / sequences
    loss.backward()
    return loss.item()


def _layer_drift(growth: Growth, before: list[Tensor], after: list[Tensor]) -> list[float]:
    """Change of the stream after each new block; `before` begins with the stream ahead of the first block.

    Zero for every exact growth. New blocks are compared with the last old one before them.
    """
    drifts, reached = [], 0
    for layer, stream in zip(growth.layers, after, strict=True):
        reached = reached if layer.new else layer.source + 1
        drifts.append(stream_change(growth, before[reached], stream))
    return drifts


def stream_change(growth: Growth, before: Tensor, after: Tensor) -> float:
    """Largest difference between a residual stream and the units of the grown one that come from it."""
    d = growth.maps["d_model"]
    kept = torch.from_numpy(np.flatnonzero(~d.is_new))
    source = torch.from_numpy(d.source[~d.is_new])
    return (after.index_select(-1, kept) - before.index_select(-1, source)).abs().max().item()


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
        expected = grow_rows(rule, parameter, "exp_avg", 0, parameter.shape[0], lambda n, a, b: old[n][a:b])
        error = ((new[name] - expected).masked_fill(entries, 0).abs().max() / scale).item()
        if error >= worst_error:
            worst, worst_error = name, error
    return {"max_error": worst_error, "worst": worst, "frozen_share": frozen / fresh if fresh else 0.0}
