"""A tiny checkpoint, and children to die in our place."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch

from growlm.checkpoint.store import CheckpointStore
from growlm.errors import GrowLMError
from growlm.testing.faults import VARIABLE

torch.set_num_threads(1)

FIELDS: dict[str, Any] = {
    "stage": 0,
    "stage_step": 7,
    "tokens": 4096,
    "updates": 6,
    "skipped": 1,
    "train_seconds": 1.25,
    "flops": 1e9,
    "model": {"family": "flm", "d_model": 8},
    "mask": 0.1 + 0.2,
    "lineage": [{"step": 3, "operator": "zero", "certificate": {"max_dlogit": 1e-7}}],
    "births": {"d_model": [[4, 8, 3]], "layers": [0, 3]},
    "guard": {"history": [2.5, 2.25]},
    "recipe_hash": "r",
    "data_fingerprint": "d",
    "tokenizer_hash": "t",
    "environment": {"torch": "2", "threads": 1},
}


def tensors(step: int) -> dict[str, torch.Tensor]:
    """The weights of a step."""
    generator = torch.Generator().manual_seed(step)
    return {
        "embedding": torch.randn(16, 8, generator=generator),
        "norm": torch.randn(8, generator=generator),
        "scale": torch.randn((), generator=generator),
        "nothing": torch.empty(0, 8),
    }


def save(store: CheckpointStore, step: int, **fields: Any) -> Path:
    """Commit model, moments and a plain file for a step."""
    with store.begin(step) as pending:
        for file, prefix in (("model.safetensors", ""), ("optimizer.safetensors", "exp_avg/")):
            state = tensors(step)
            writer = pending.writer(file, [(prefix + n, t.dtype, tuple(t.shape)) for n, t in state.items()])
            for tensor in state.values():
                writer.write(tensor)
        pending.path("notes.json").write_text(f'{{"step":{step}}}')
        return pending.commit(**FIELDS | fields)


def assert_holds(path: Path, step: int) -> None:
    """The newest whole checkpoint at `path` is the one that was saved at `step`, bit for bit."""
    checkpoint = CheckpointStore(path, keep=2).latest_valid(print)
    assert checkpoint is not None
    assert checkpoint.manifest.step == step
    loaded = checkpoint.load("model.safetensors")
    assert loaded.keys() == tensors(step).keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors(step).items())


def in_child(action: Callable[[], object], fault: str = "") -> int:
    """Run in a forked child with a fault armed: its exit code (a GrowLMError's own), or -9 if killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's idle threads do not matter here
        pid = os.fork()
        if pid == 0:
            _run_and_exit(action, fault)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _run_and_exit(action: Callable[[], object], fault: str) -> NoReturn:
    code = 1
    try:
        os.environ[VARIABLE] = fault
        action()
        code = 0
    except GrowLMError as error:
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
