"""Predicted speeds are close to published ones, and what is predicted adds up."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

import pytest

from growlm.plan.activations import Work
from growlm.plan.flops import flops_per_token
from growlm.plan.layout import Layout
from growlm.plan.machines import load_machines
from growlm.plan.step_time import StepTime, step_time
from growlm.recipe.shape import ModelConfig

MACHINES = load_machines()


def gpt(d_model: int, n_heads: int, n_layers: int, vocab_size: int = 50_368) -> ModelConfig:
    return ModelConfig(
        family="gpt2",
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        head_dim=d_model // n_heads,
        d_ff=4 * d_model,
        n_layers=n_layers,
        vocab_size=vocab_size,
        max_positions=8192,
    )


MPT = {
    "125m": gpt(768, 12, 12),
    "350m": gpt(1024, 16, 24),
    "760m": gpt(1536, 12, 24),
    "1b": gpt(2048, 16, 24),
    "3b": gpt(2560, 20, 32),
    "7b": gpt(4096, 32, 32),
    "13b": gpt(5120, 40, 40),
    "30b": gpt(7168, 56, 48),
    "70b": gpt(8192, 64, 80),
}

# mosaicml/llm-foundry, scripts/train/benchmarking, FSDP in bf16: GPU, model, context, GPUs, micro-batch,
# batch, whether all is recomputed, MFU in percent.
FOUNDRY = [
    ("a100", "125m", 2048, 8, 40, 640, False, 44.79),
    ("a100", "350m", 2048, 8, 32, 512, False, 51.62),
    ("a100", "760m", 2048, 8, 24, 384, False, 56.85),
    ("a100", "1b", 2048, 8, 14, 448, False, 59.86),
    ("a100", "3b", 2048, 8, 10, 160, False, 62.11),
    ("a100", "3b", 8192, 8, 3, 144, False, 59.34),
    ("a100", "7b", 2048, 8, 6, 96, False, 64.23),
    ("a100", "13b", 2048, 8, 2, 48, False, 59.57),
    ("a100", "30b", 2048, 8, 3, 504, True, 55.30),
    ("a100", "70b", 2048, 64, 8, 2048, True, 53.33),
    ("a100", "70b", 2048, 32, 2, 1024, True, 48.56),
    ("h100", "760m", 2048, 32, 24, 768, False, 37.57),
    ("h100", "1b", 2048, 8, 14, 112, False, 41.82),
    ("h100", "3b", 2048, 64, 6, 1152, False, 40.80),
    ("h100", "3b", 4096, 8, 5, 240, False, 42.31),
    ("h100", "7b", 2048, 8, 6, 48, False, 46.44),
    ("h100", "7b", 4096, 8, 16, 256, True, 40.42),
    ("h100", "13b", 2048, 64, 2, 128, False, 39.86),
    ("h100", "30b", 2048, 8, 3, 504, True, 38.11),
    ("h100", "70b", 2048, 64, 8, 2048, True, 42.57),
    ("h100", "70b", 2048, 32, 2, 1024, True, 36.15),
]


def test_published_speeds_of_fully_sharded_models_are_met() -> None:
    errors = []
    for gpu, name, T, gpus, micro, batch, again, percent in FOUNDRY:
        recompute = "full" if again else "none"
        layout = Layout(dp=gpus, zero=3, micro_batch=micro, recompute=recompute)
        step = step_time(MPT[name], layout, Work(seq_len=T, batch_size=batch), MACHINES.gpu(gpu))
        errors.append(abs(100 * step.mfu / percent - 1))
    assert max(errors) < 0.15
    assert mean(errors) < 0.07


# 2205.05198, table 5: sequence parallel, selective recomputation, on A100. Hidden size, heads, layers, pp,
# interleave, batch, micro-batch, MFU in percent; tp is 8, dp 1.
MEGATRON = [
    (6144, 64, 48, 1, 1, 4, 4, 41.5),
    (12_288, 96, 96, 8, 3, 64, 1, 51.4),
    (20_480, 128, 105, 35, 3, 280, 1, 56.0),
    (25_600, 160, 128, 64, 1, 512, 1, 56.3),
]


@pytest.mark.parametrize(("h", "heads", "layers", "pp", "v", "batch", "micro", "percent"), MEGATRON)
def test_published_speeds_of_tensor_and_pipeline_parallel_models_are_met(
    h: int, heads: int, layers: int, pp: int, v: int, batch: int, micro: int, percent: float
) -> None:
    layout = Layout(
        tp=8, pp=pp, interleave=v, zero=0, micro_batch=micro, recompute="selective", sequence_parallel=True
    )
    work = Work(seq_len=2048, batch_size=batch)
    step = step_time(gpt(h, heads, layers, 51_200), layout, work, MACHINES.gpu("a100"))
    assert 100 * step.mfu == pytest.approx(percent, rel=0.16)


STEPS = [
    Layout(zero=0, micro_batch=4),
    Layout(dp=8, zero=3, micro_batch=2, recompute="full"),
    Layout(dp=2, tp=4, zero=1, sequence_parallel=True),
    Layout(dp=2, tp=2, pp=3, sequence_parallel=True, recompute="selective"),
]


@pytest.mark.parametrize("layout", STEPS, ids=str)
def test_parts_of_a_step_add_up_and_a_given_mfu_is_kept(layout: Layout) -> None:
    work, gpu = Work(seq_len=2048, batch_size=64), MACHINES.gpu("h100")
    for mfu in (None, 0.4):
        step = step_time(MPT["1b"], layout, work, gpu, mfu=mfu)
        assert parts(step) == pytest.approx(step.seconds)
        assert step.mfu == (mfu or pytest.approx(step.mfu))
        flops = flops_per_token(MPT["1b"], 2048) * 64 * 2048
        assert flops / (step.seconds * layout.world * gpu.peak_flops) == pytest.approx(step.mfu)


def parts(step: StepTime) -> float:
    return step.compute + step.recompute + step.communication + step.bubble


def test_the_bubble_and_the_network_cost_what_they_must() -> None:
    work, gpu = Work(seq_len=2048, batch_size=64), MACHINES.gpu("h100")
    one = step_time(MPT["1b"], Layout(zero=0), work, gpu)
    assert (one.communication, one.bubble) == (0, pytest.approx(0, abs=1e-12))
    piped = step_time(MPT["1b"], Layout(zero=0, pp=4), work, gpu)
    assert piped.bubble > piped.compute * 3 / 64
    slow = replace(gpu, intra_bytes_per_second=gpu.intra_bytes_per_second / 10)
    split = Layout(zero=0, tp=8, sequence_parallel=True)
    fast_step, slow_step = (step_time(MPT["1b"], split, work, g) for g in (gpu, slow))
    assert slow_step.communication == pytest.approx(10 * fast_step.communication)
    assert slow_step.compute == fast_step.compute
    across = [step_time(MPT["7b"], Layout(dp=dp, zero=3), work, gpu).communication for dp in (8, 16)]
    assert across[1] > across[0] / 2, "of half as many micro-batches, over the slower network"


def test_fp32_is_as_much_slower_as_its_peak() -> None:
    """A100: 19.5 against 312 TFLOP/s."""
    gpu, layout = MACHINES.gpu("a100"), Layout(zero=0, micro_batch=16)
    bf16, fp32 = (
        step_time(MPT["7b"], layout, Work(seq_len=2048, batch_size=16, compute_bytes=size), gpu).seconds
        for size in (2, 4)
    )
    assert fp32 / bf16 == pytest.approx(312 / 19.5, rel=0.1)
