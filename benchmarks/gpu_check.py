"""Check on a GPU what the tests check on a CPU: the same loss and gradients in fp32 and bf16.

python benchmarks/gpu_check.py
"""

from __future__ import annotations

import torch
from torch import Tensor

from growlm.model.decoder import Decoder
from growlm.recipe.shape import ModelConfig


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


def loss_and_gradient(family: str, device: str, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """Loss of one batch on `device`, and its gradient as one vector; both back on the CPU."""
    c = config(family)
    model = Decoder(c).init_weights(0).to(device)
    model.compute_dtype = dtype
    tokens = torch.randint(0, c.vocab_size, (2, 4, 128), generator=torch.Generator().manual_seed(0)).to(
        device
    )
    loss = model.loss(tokens[0], tokens[1])
    loss.backward()
    gradients = [p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]
    return loss.detach().cpu(), torch.cat(gradients)


def difference(family: str, dtype: torch.dtype | None) -> float:
    """The larger relative difference of loss and gradient between the GPU and fp32 on the CPU."""
    pairs = zip(loss_and_gradient(family, "cuda", dtype), loss_and_gradient(family, "cpu", None), strict=True)
    return max(((actual - expected).norm() / expected.norm()).item() for actual, expected in pairs)


def main() -> None:
    """Print every difference; fail on the first that is too large."""
    torch.backends.cuda.matmul.allow_tf32 = False
    for family in ("flm", "llama"):
        for dtype, limit in ((None, 1e-4), (torch.bfloat16, 5e-2)):
            found = difference(family, dtype)
            print(f"{family} {dtype or 'fp32'}: GPU against CPU {found:.2g} (at most {limit:g})")
            assert found <= limit


if __name__ == "__main__":
    main()
