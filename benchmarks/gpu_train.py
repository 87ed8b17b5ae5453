"""bf16 training on one GPU: tokens/s, MFU and memory, compiled or not, with and without recomputation.

    python benchmarks/gpu_train.py                             # on a GPU, some 15 minutes
    python benchmarks/gpu_train.py --device cpu --tiny         # that it runs at all; writes nothing

Models: 1.3 billion parameters of both families, and slices of FLM's 51B and 101B models: the same blocks and
head, few layers. A step is all that a training step makes a GPU do: forward and backward of every
micro-batch, gradient norm, clipping, fused AdamW on fp32 weights, random tokens from the host. Ways of
training share the weights and alternate in rounds; steps within one round are not waited for.

MFU is model FLOPs, 6 per matmul weight and token, head included, and 12 L H E T for attention (not halved
for causality, recomputation not counted), over two ceilings: the dense bf16 peak of the data sheet, and the
matmul that growlm.train.peak measures in the same rounds.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from common import table, write_results
from torch import Tensor

from growlm.model.decoder import Decoder
from growlm.model.parameters import n_parameters
from growlm.parallel.compile import compile_blocks
from growlm.parallel.engine import Engine
from growlm.parallel.recompute import recompute
from growlm.plan.activations import Work
from growlm.plan.flops import flops_per_token
from growlm.plan.footprint import footprint
from growlm.plan.layout import Layout, Recompute
from growlm.plan.machines import load_machines
from growlm.plan.step_time import step_time
from growlm.recipe.schema import OptimTable
from growlm.recipe.shape import ModelConfig
from growlm.train.guard import decide
from growlm.train.optimizer import Optimizer
from growlm.train.peak import matmul_peak_tflops

WAYS: list[tuple[bool, Recompute]] = [(c, r) for c in (False, True) for r in ("none", "selective", "full")]
WARMUP, LR = 2, 1e-4


@dataclass(frozen=True)
class Case:
    """A model, and the batch of a step in sequences."""

    name: str
    config: ModelConfig
    batch_size: int
    micro_batch: int
    seq_len: int = 2048

    @property
    def tokens(self) -> int:
        """In a step."""
        return self.batch_size * self.seq_len


def gpt(family: str, d_model: int, n_layers: int, vocab_size: int, head_dim: int = 128) -> ModelConfig:
    """A model of the usual proportions."""
    return ModelConfig(
        family=family,
        d_model=d_model,
        n_heads=d_model // head_dim,
        n_kv_heads=d_model // head_dim,
        head_dim=head_dim,
        d_ff=4 * d_model if family == "flm" else round(d_model / 48) * 128,
        n_layers=n_layers,
        vocab_size=vocab_size,
    )


CASES = [
    Case("llama 1.3B", gpt("llama", 2048, 24, 50_304), batch_size=32, micro_batch=8),
    Case("flm 1.3B", gpt("flm", 2048, 24, 50_304), batch_size=32, micro_batch=8),
    Case("slice of 51B, 4 layers", gpt("flm", 8192, 4, 100_352), batch_size=16, micro_batch=4),
    Case("slice of 101B, 3 layers", gpt("flm", 10_240, 3, 100_352), batch_size=16, micro_batch=4),
]


def tiny(case: Case) -> Case:
    """The same in small."""
    c = gpt(case.config.family, 64, 2, 256, head_dim=16)
    return replace(case, config=c, batch_size=4, micro_batch=2, seq_len=32)


@dataclass
class Way:
    """One way to train a model, and what was measured of it."""

    name: str
    layout: Layout
    part: Decoder
    seconds: list[float] = field(default_factory=list)
    memory: int = 0
    failed: str = ""


def main() -> None:
    """Measure, print and write the table."""
    args = arguments()
    device = torch.device(args.device)
    rows, data = [], []
    for case in (tiny(c) if args.tiny else c for c in CASES):
        names = [f"{case.name}, {way_name(*way)}" for way in WAYS]
        chosen = [w for w, n in zip(WAYS, names, strict=True) if all(o in n for o in args.only)]
        for result in measure(case, chosen, device, args) if chosen else []:
            data.append(result)
            rows.append(cells(result))
    header = ["model", "way", "parameters", "tokens/s", "MFU of peak", "planned", "MFU of matmul"]
    header += ["memory", "planned"]
    text = f"{device_name(device)}, torch {torch.__version__}\n\n{table(header, rows)}"
    if args.tiny:
        print(text)
    else:
        write_results("gpu_train", text, {"device": device_name(device), "runs": data})


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="GrowLM on one GPU.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="in each round")
    parser.add_argument("--only", nargs="*", default=[], help='parts of a name: "flm" "compiled, selective"')
    parser.add_argument("--tiny", action="store_true", help="shapes for a test; no results are written")
    return parser.parse_args()


def measure(case: Case, ways: list[tuple[bool, Recompute]], device: torch.device, args: Any) -> list[Any]:
    """Every way of training a model, in rounds."""
    engine = build(case, device)
    trained = [Way(way_name(*way), layout_of(case, *way), variant(engine.model, *way)) for way in ways]
    optimizer = Optimizer(
        case.config, engine.parameters, engine.pieces, OptimTable.model_validate({"lr": 1e-4}), {}
    )
    matmul = []
    for number in range(args.rounds):
        matmul.append(matmul_peak_tflops(device, torch.bfloat16))
        for way in trained:
            if not way.failed:
                engine.parts = [way.part]
                measure_round(case, way, engine, optimizer, args.steps, 1 if number else WARMUP)
    figures = {
        "model": case.name,
        "parameters": n_parameters(case.config),
        "batch_size": case.batch_size,
        "micro_batch": case.micro_batch,
        "seq_len": case.seq_len,
        "matmul_tflops": statistics.median(matmul),
    }
    return [figures | of_way(case, way, statistics.median(matmul), device) for way in trained]


def build(case: Case, device: torch.device) -> Engine:
    """The engine of a model with random weights."""
    layout, pieces = Layout(micro_batch=case.micro_batch), case.batch_size // case.micro_batch
    engine = Engine(case.config, layout, 0, device, torch.bfloat16, pieces)
    for name, p in engine.parameters.items():
        p.normal_(std=0.02) if p.dim() > 1 else p.fill_(float("norm.weight" in name))
    return engine


def variant(model: Decoder, compiled: bool, kind: Recompute) -> Decoder:
    """The same model, sharing all parameters, to be trained in another way."""
    with torch.device("meta"):
        part = Decoder(model.config)
    part.compute_dtype = model.compute_dtype
    owners = dict(model.named_modules())
    for name, module in part.named_modules():
        for key, parameter in owners[name].named_parameters(recurse=False):
            setattr(module, key, parameter)
    recompute(part, Layout(recompute=kind))
    if compiled:
        compile_blocks(part)
    return part


def measure_round(
    case: Case, way: Way, engine: Engine, optimizer: Optimizer, steps: int, warmup: int
) -> None:
    """Some steps, timed together; peak memory. A way that does not fit into memory says so from then on."""
    device, started = engine.device, 0.0
    try:
        for number in range(warmup + steps):
            if number == warmup:
                synchronize(device)
                started = time.perf_counter()
            train_step(case, engine, optimizer, number)
        synchronize(device)
        way.seconds.append((time.perf_counter() - started) / steps)
    except torch.OutOfMemoryError:
        way.failed = "out of memory"
        engine.zero_grad()
    if device.type == "cuda":
        way.memory = max(way.memory, torch.cuda.max_memory_allocated(device))
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def train_step(case: Case, engine: Engine, optimizer: Optimizer, number: int) -> None:
    """What a GPU does in a step of a run (growlm/train/loop.py)."""
    x, y = tokens(case, number, engine.device)
    loss, norm = engine.forward_backward(x, y)
    skip = decide(loss, norm, (math.inf, math.inf))
    engine.scale_grads((1.0 / (norm + 1e-6)).clamp(max=1.0).float())
    optimizer.step(engine.grads, LR, 1 + number, None, skip)
    engine.zero_grad()


def tokens(case: Case, number: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random inputs and targets of a step, (B, T)."""
    generator = torch.Generator().manual_seed(number)
    shape = (case.batch_size, case.seq_len + 1)
    drawn = torch.randint(0, case.config.vocab_size, shape, generator=generator)
    drawn = drawn.pin_memory() if device.type == "cuda" else drawn
    moved = drawn.to(device, non_blocking=True)
    return moved[:, :-1], moved[:, 1:]


def of_way(case: Case, way: Way, matmul: float, device: torch.device) -> dict[str, Any]:
    """The figures of one way; None for what is not known."""
    work = Work(seq_len=case.seq_len, batch_size=case.batch_size, cpu=device.type == "cpu")
    gpu = load_machines().of_device(device_name(device))
    result: dict[str, Any] = {
        "way": way.name,
        "failed": way.failed,
        "memory": way.memory or None,
        "planned_memory": footprint(case.config, way.layout, work, 0).total,
        "planned_mfu": step_time(case.config, way.layout, work, gpu).mfu if gpu else None,
    }
    if way.failed:
        return result
    speed = case.tokens / statistics.median(way.seconds)
    tflops = speed * flops_per_token(case.config, case.seq_len) / 1e12
    return result | {
        "step_seconds": way.seconds,
        "tokens_per_second": speed,
        "tflops": tflops,
        "mfu_of_peak": tflops * 1e12 / gpu.peak_flops if gpu else None,
        "mfu_of_matmul": tflops / matmul,
    }


def cells(result: dict[str, Any]) -> list[str]:
    """A result as a line of the table."""
    parameters = f"{result['parameters'] / 1e9:.2f} B"
    memory = [f"{result[m] / 1e9:.1f} GB" if result[m] else "-" for m in ("memory", "planned_memory")]
    if result["failed"]:
        return [result["model"], result["way"], parameters, result["failed"], "-", "-", "-", *memory]
    of_peak = [f"{result[m]:.1%}" if result[m] else "-" for m in ("mfu_of_peak", "planned_mfu")]
    speeds = [f"{result['tokens_per_second']:,.0f}", *of_peak, f"{result['mfu_of_matmul']:.1%}"]
    return [result["model"], result["way"], parameters, *speeds, *memory]


def layout_of(case: Case, compiled: bool, kind: Recompute) -> Layout:
    """The way as a plan knows it."""
    return Layout(micro_batch=case.micro_batch, recompute=kind, compile=compiled, zero=0)


def way_name(compiled: bool, kind: Recompute) -> str:
    """What the table calls a way."""
    kept = {"none": "nothing recomputed", "selective": "selective", "full": "all recomputed"}[kind]
    return f"{'compiled' if compiled else 'eager'}, {kept}"


def device_name(device: torch.device) -> str:
    """The GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def synchronize(device: torch.device) -> None:
    """Wait for everything that was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
