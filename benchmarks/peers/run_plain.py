"""A plain loop in the manner of nanoGPT: its GPT, its AdamW groups, nothing tuned; `variant` fp32 or bf16."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .measure import Clock, Job, job, random_tokens


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        B, T, D = x.shape
        q, k, v = (h.view(B, T, self.heads, -1).transpose(1, 2) for h in self.qkv(self.ln_1(x)).split(D, 2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(B, T, D))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    """GPT-2 with a tied head."""

    def __init__(self, j: Job) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(j.vocab_size, j.d_model), nn.Embedding(j.seq_len, j.d_model)
        self.blocks = nn.Sequential(*(Block(j.d_model, j.n_heads) for _ in range(j.n_layers)))
        self.ln_f = nn.LayerNorm(j.d_model)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross entropy of y (B, T) given x (B, T)."""
        h = self.wte(x) + self.wpe(torch.arange(x.shape[1]))
        logits = F.linear(self.ln_f(self.blocks(h)), self.wte.weight)
        return F.cross_entropy(logits.flatten(0, 1), y.flatten())


def main() -> None:
    """Train and report."""
    j = job()
    model = GPT(j)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
    clock = Clock()
    for step in range(j.total_steps):
        tokens = random_tokens(j, step)
        with torch.autocast("cpu", torch.bfloat16, enabled=j.variant == "bf16"):
            loss = model(tokens[:, :-1], tokens[:, 1:].contiguous())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.tick(loss.item())
    clock.report(j)


if __name__ == "__main__":
    main()
