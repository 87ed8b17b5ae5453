"""Hugging Face Trainer: GPT-2 of the job's shape, bf16, fused AdamW, no dropout; logging and saving off."""

from __future__ import annotations

import os
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")

from torch import Tensor
from torch.utils.data import Dataset
from transformers import (  # pyright: ignore[reportMissingImports]
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from .measure import Clock, Job, job, random_tokens


class RandomDataset(Dataset[dict[str, Tensor]]):
    """The sequences of every batch, one by one."""

    def __init__(self, j: Job) -> None:
        self.rows = [row[:-1] for step in range(j.total_steps) for row in random_tokens(j, step)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


class Ticker(TrainerCallback):
    """Ticks the clock at the end of every step."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, *_: object, **__: object) -> None:
        """A step has ended."""
        self.clock.tick()


def main() -> None:
    """Train and report."""
    j = job()
    config = GPT2Config(
        n_layer=j.n_layers,
        n_embd=j.d_model,
        n_head=j.n_heads,
        vocab_size=j.vocab_size,
        n_positions=j.seq_len,
        activation_function="gelu_pytorch_tanh",  # what gelu_new computes, in one kernel
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            bf16=True,
            optim="adamw_torch_fused",
            per_device_train_batch_size=j.batch_size,
            max_steps=j.total_steps,
            learning_rate=1e-3,
            weight_decay=0.1,
            adam_beta2=0.95,
            max_grad_norm=1.0,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        clock = Clock()
        model = GPT2LMHeadModel(config)
        Trainer(model, arguments, train_dataset=RandomDataset(j), callbacks=[Ticker(clock)]).train()
    clock.report(j)


if __name__ == "__main__":
    main()
