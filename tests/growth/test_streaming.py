"""Certificates that hold little in memory find what the full one finds, and notice every kind of damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from growlm.errors import GrowthError
from growlm.growth import choose, streaming, symmetry
from growlm.growth.certify import certify, require
from growlm.growth.choose import affordable, certify_as
from growlm.growth.operators import Growth, plan_growth
from growlm.growth.sampled import certify_sampled
from growlm.growth.streaming import certify_streaming, layer_distances
from growlm.growth.weights import MemoryWeights
from growlm.model.parameters import parameter_table
from tests.growth.tools import all_growths, everything, grown, reachable, table
from tests.model.tiny import State, batch, config, decoder, trained

FAMILIES = ("llama", "flm", "qwen3", "gpt2", "neox")
Certificate = Callable[[Growth, State, State], dict[str, Any]]


def tiny(family: str, **changes: Any) -> Any:
    c = config(family, **changes)
    return c.with_(max_positions=64) if "position.weight" in parameter_table(c.with_(max_positions=64)) else c


def streamed(growth: Growth, old: State, new: State) -> dict[str, Any]:
    weights = MemoryWeights(growth.old, old), MemoryWeights(growth.new, new)
    return certify_streaming(growth, *weights, *batch(growth.old))


def sampled(growth: Growth, old: State, new: State) -> dict[str, Any]:
    weights = MemoryWeights(growth.old, old), MemoryWeights(growth.new, new)
    return certify_sampled(growth, *weights, probes=10**6)


@pytest.mark.parametrize(
    ("family", "tied"), [("llama", True), ("flm", False), ("qwen3", True), ("gpt2", True), ("neox", False)]
)
def test_streamed_is_the_full_certificate_without_gradients(
    family: str, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "HEAD_ELEMENTS", 1500)  # several parts of the vocabulary
    monkeypatch.setattr(symmetry, "CHUNK_BYTES", 3000)
    c = tiny(family, tied=tied)
    not_exact = plan_growth(c, everything(c, multiple=True), table(operator="clone", depth="stack"))
    for growth in [*all_growths(c)[::2], not_exact]:
        old = trained(c)
        new = grown(growth, old)
        full, streams = certify(growth, old, new, *batch(c)), streamed(growth, old, new)
        assert (full.pop("kind"), streams.pop("kind")) == ("full", "streaming")
        assert full.keys() - streams.keys() == {"gradient"}
        for key in ("max_dlogit", "dloss", "loss_before", "loss_after", "tolerance"):
            assert streams[key] == pytest.approx(full[key], abs=1e-12)
        for mine, its in zip(streams["layers"], full["layers"], strict=True):
            assert mine["drift"] == pytest.approx(its["drift"], abs=1e-12)
        for key in ("exact", "precision", "tokens", "symmetry"):
            assert streams[key] == full[key]
        require(streams)
        assert json.loads(json.dumps(streams)) == streams


def test_large_logits_in_fp32_are_judged_in_fp64() -> None:
    c = config("flm")
    old = {name: 5 * w for name, w in trained(c, dtype=torch.float32).items()}
    growth = plan_growth(c, c.with_(d_model=23), table(operator="masked", certify="fp32"))
    result = streamed(growth, old, grown(growth, old))
    require(result)
    assert result["precision"] == "fp64"
    assert result["max_dlogit"] < 1e-9 < result["max_dlogit_fp32"]


@pytest.mark.parametrize("family", FAMILIES)
def test_probes_find_nothing_in_what_is_right(family: str) -> None:
    for growth in all_growths(tiny(family)):
        old = trained(growth.old)
        result = sampled(growth, old, grown(growth, old))
        assert (result["kind"], result["exact"]) == ("sampled", True)
        assert result["max_error"] <= result["tolerance"] <= 1e-15
        require(result)
        assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize("operator", ["masked", "zero", "clone", "lemon", "staged"])
@pytest.mark.parametrize("certificate", [streamed, sampled])
def test_damage_to_any_kind_of_tensor_is_noticed(operator: str, certificate: Certificate) -> None:
    c = tiny("qwen3", tied=False, n_layers=3)
    growth = plan_growth(c, reachable(c, operator), table(operator=operator))
    old = trained(c)
    new = grown(growth, old)
    x, _ = batch(c)
    block = next(i for i, layer in enumerate(growth.layers) if layer.source == 1)
    for name in parameter_table(growth.new):
        if name.startswith("blocks.") and not name.startswith(f"blocks.{block}."):
            continue
        damaged = new | {name: new[name].clone()}
        row = int(x[0, 0]) if name == "embedding.weight" else 0
        damaged[name][row : row + 1].mul_(1.01)
        with pytest.raises(GrowthError, match="declared exact") as error:
            require(certificate(growth, old, damaged))
        if name.startswith("blocks."):
            assert f"block {block} (from 1)" in error.value.where, name
        if certificate is sampled:
            assert name in error.value.what


@pytest.mark.parametrize("certificate", [streamed, sampled])
def test_a_new_block_that_does_something_is_named(certificate: Certificate) -> None:
    c = config("flm")
    for depth in ("zero_block", "identity"):
        growth = plan_growth(c, c.with_(n_layers=4), table(depth=depth))
        old = trained(c)
        new = grown(growth, old)
        new["blocks.1.attn.o_proj.weight"][3, 3] += 1e-3
        new["blocks.1.attn_norm.weight"][:] += 1.0
        with pytest.raises(GrowthError) as error:
            require(certificate(growth, old, new))
        assert "block 1 (from" in error.value.where


@pytest.mark.parametrize("certificate", [streamed, sampled])
def test_what_is_no_number_is_refused(certificate: Certificate) -> None:
    c = config("llama")
    growth = plan_growth(c, c.with_(d_ff=40), table(operator="zero"))
    old = trained(c)
    new = grown(growth, old)
    new["blocks.1.mlp.up_proj.weight"][39, 3] = float("nan")
    with pytest.raises(GrowthError):
        require(certificate(growth, old, new))


def test_a_model_of_no_blocks_is_compared_from_its_embedding_on() -> None:
    c = config("llama", n_layers=0)
    growth = plan_growth(c, c.with_(n_layers=2), table(depth="random"))
    assert not growth.exact
    old = trained(c)
    new = grown(growth, old)
    full, streams = certify(growth, old, new, *batch(c)), streamed(growth, old, new)
    assert streams["layers"] == full["layers"]
    assert streams["layers"][0]["drift"] > 0


def test_distances_are_those_of_the_streams_before_and_after_each_block() -> None:
    c = config("llama", n_layers=3)
    state = trained(c)
    tokens, _ = batch(c)
    trace: list[torch.Tensor] = []
    model = decoder(c, state)
    with torch.no_grad():
        model(tokens, trace)
        streams = [model.embed(tokens), *trace]
    expected = [1 - F.cosine_similarity(a, b, dim=-1).mean().item() for a, b in zip(streams, trace)]  # noqa: B905
    assert layer_distances(MemoryWeights(c, state), tokens) == pytest.approx(expected, abs=1e-6)


def test_the_strongest_certificate_that_fits_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    c = config("llama")
    growth = plan_growth(c, c.with_(d_ff=40), table(operator="zero"))
    block = sum(p.numel for p in parameter_table(growth.new).values() if p.layer == 0)
    both = choose.full_bytes(growth)
    old = trained(c)
    weights = MemoryWeights(growth.old, old), MemoryWeights(growth.new, grown(growth, old))
    for free, kind in ((both, "full"), (both - 1, "streaming"), (16 * block - 1, "sampled")):
        monkeypatch.setattr(choose, "memory_bytes", lambda free=free: (0, 3 * free))
        assert affordable(growth) == kind
        assert certify_as("auto", growth, *weights, batch(c))["kind"] == kind
    for kind in ("full", "streaming", "sampled"):
        assert certify_as(kind, growth, *weights, batch(c))["kind"] == kind


def test_few_probes_read_few_rows() -> None:
    c = config("llama")
    growth = plan_growth(c, c.with_(d_model=32), table(operator="clone"))
    old = trained(c)
    read: list[int] = []

    class Counted(MemoryWeights):
        def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
            rows = super().read(name, start, stop)
            read.append(len(rows))
            return rows

    new = Counted(growth.new, grown(growth, old))
    certify_sampled(growth, Counted(growth.old, old), new, probes=2)
    assert set(read) == {1}
    assert np.sum(read) <= 2 * 2 * len(parameter_table(growth.new))
