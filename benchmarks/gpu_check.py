"""Check on a GPU what the tests check on a CPU: the same loss and gradients in fp32 and bf16, also compiled,
and with weighed targets in documents that are kept apart.

Also that attention in bf16 is a flash or cuDNN kernel, grouped or not, and that a training step never waits
for the GPU.

python benchmarks/gpu_check.py
"""

from __future__ import annotations

from itertools import product

import torch
from gpu_train import WAYS, Case, build, train_step
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from growlm.model.attention import attention
from growlm.model.decoder import Decoder
from growlm.model.loss import Learning
from growlm.model.masks import Ramp
from growlm.parallel.compile import compile_blocks
from growlm.parallel.recompute import recompute
from growlm.plan.layout import Layout
from growlm.recipe.schema import OptimTable
from growlm.recipe.shape import ModelConfig
from growlm.train.optimizer import Optimizer


def config(family: str) -> ModelConfig:
    """A small model with grouped queries."""
    gqa = family == "llama"
    return ModelConfig(
        family=family,
        d_model=128,
        n_heads=4,
        n_kv_heads=2 if gqa else 4,
        head_dim=32,
        d_ff=384 if gqa else 512,
        n_layers=3,
        vocab_size=512,
    )


def loss_and_gradient(
    family: str, device: str, dtype: torch.dtype | None, layout: Layout, weighed: bool
) -> tuple[Tensor, Tensor]:
    """Loss of one batch on `device`, and its gradient as one vector; both back on the CPU."""
    c = config(family)
    model = Decoder(c).init_weights(0).to(device)
    model.compute_dtype = dtype
    recompute(model, layout)
    if layout.compile:
        compile_blocks(model)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, c.vocab_size, (2, 4, 128), generator=generator).to(device)
    learning = None
    if weighed:
        model.document_end = 0
        tokens[:, :, ::50] = 0
        weights = torch.rand(4, 128, generator=generator).round()
        group, classes = torch.zeros(4, dtype=torch.int64), (0, 1)
        learning = Learning(weights / weights.mean(), group, classes).to(torch.device(device))
    loss, _ = model.head_loss(model(tokens[0], documents=tokens[0]), tokens[1], learning)
    loss.backward()
    gradients = [p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]
    return loss.detach().cpu(), torch.cat(gradients)


def difference(family: str, dtype: torch.dtype | None, layout: Layout, weighed: bool) -> float:
    """The larger relative difference of loss and gradient between the GPU and fp32 on the CPU."""
    found = loss_and_gradient(family, "cuda", dtype, layout, weighed)
    expected = loss_and_gradient(family, "cpu", None, Layout(), weighed)
    return max(((a - b).norm() / b.norm()).item() for a, b in zip(found, expected, strict=True))


def check_kernel(kv_heads: int) -> None:
    """Fail if attention in bf16 needs any but the two fast kernels, forward or backward."""
    shapes = [(2, heads, 2048, 128) for heads in (16, kv_heads, kv_heads)]
    q, k, v = (torch.randn(s, device="cuda", dtype=torch.bfloat16, requires_grad=True) for s in shapes)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION]):
        attention(q, k, v).sum().backward()
    print(f"attention of 16 heads on {kv_heads}: flash or cuDNN")


def check_no_wait() -> None:
    """Fail if a step that follows another makes the host wait for the GPU."""
    case = Case("check", config("llama"), batch_size=4, micro_batch=2, seq_len=128)
    engine = build(case, torch.device("cuda"))
    ramp = Ramp(10, {"d_model": ((96, 128),), "ffn": ((256, 384),), "vocab": ((500, 512),)}, (2,))
    settings = OptimTable.model_validate({"lr": 1e-4})
    optimizer = Optimizer(case.config, engine.parameters, engine.pieces, settings, {})
    for number in range(3):
        torch.cuda.set_sync_debug_mode("error" if number else "default")
        engine.set_mask(ramp, 0.1 * (number + 1))
        train_step(case, engine, optimizer, number)
    torch.cuda.set_sync_debug_mode("default")
    print("a step waits for nothing")


def main() -> None:
    """Print every difference; fail on the first that is too large."""
    torch.backends.cuda.matmul.allow_tf32 = False
    layouts = [Layout(recompute=kind, compile=compiled) for compiled, kind in WAYS]
    limits = ((None, 1e-4), (torch.bfloat16, 5e-2))
    for family, (dtype, limit), layout, weighed in product(("flm", "llama"), limits, layouts, (False, True)):
        found = difference(family, dtype, layout, weighed)
        way = f"recompute {layout.recompute}, {'compiled' if layout.compile else 'eager'}"
        way += ", weighed" if weighed else ""
        print(f"{family} {dtype or 'fp32'} {way}: GPU against CPU {found:.2g} (at most {limit:g})")
        assert found <= limit
    check_kernel(16)
    check_kernel(4)
    check_no_wait()


if __name__ == "__main__":
    main()
