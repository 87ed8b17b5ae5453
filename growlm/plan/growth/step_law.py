"""Learning rate and batch for a model and its tokens: Step Law (Li et al., 2503.04715). No torch.

    lr    = 1.79 N^-0.713 D^0.307          N without the embedding, D tokens
    batch = 0.58 D^0.571 tokens

Fitted to dense models of 60M to 1B in standard parametrization, AdamW, lr decayed to 1e-5. The two belong
together: at a batch that does not grow with D the best learning rate falls with D instead.
"""

from __future__ import annotations


def step_law_lr(params: float, tokens: float) -> float:
    """The peak learning rate."""
    return 1.79 * params**-0.713 * tokens**0.307


def step_law_batch(tokens: float) -> float:
    """Tokens in one optimizer step."""
    return 0.58 * tokens**0.571
