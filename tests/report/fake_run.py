"""A realistic run folder without training: three stages, two languages, a kill, a resume, two growths."""

from __future__ import annotations

import json
import math
import random
import time
from pathlib import Path
from typing import Any

from growlm.recipe.schema import Recipe
from growlm.train.record import Recorder

STAGES = [
    {"name": "seed", "d_model": 128, "n_heads": 2, "d_ff": 512, "n_layers": 4, "lr": 1.2e-3},
    {"name": "sapling", "d_model": 192, "n_heads": 3, "d_ff": 768, "n_layers": 6, "lr": 9e-4},
    {"name": "tree", "d_model": 256, "n_heads": 4, "d_ff": 1024, "n_layers": 8, "lr": 7e-4},
]
PROMPTS = {
    "Once upon a time": [
        " the the of and of the",
        " there was a man of the house",
        " there was a little girl who lived",
    ],
    "从前有一个": ["的的一了不的", "人在家里的时候", "小孩子，住在山脚下的村子里。"],
}
BATCH, SEQ = 8, 256


def _card_source(kind: str, license: str, tokens: int, samples: list[str]) -> dict[str, Any]:
    amounts = {"documents": tokens // 200, "bytes": tokens * 4, "tokens": tokens}
    held_out = {key: value // 99 for key, value in amounts.items()}
    full, size = amounts["documents"] + held_out["documents"], amounts["bytes"] + held_out["bytes"]
    left = {"documents_out": full, "bytes_out": size}
    steps = [
        {"name": "read", "documents_in": full + 103, "bytes_in": size + 70_000, "reasons": {"no JSON": 3}},
        {"name": "quality", "documents_in": full + 100, "bytes_in": size + 60_000, "reasons": {"HTML": 100}},
    ]
    return {
        "kind": kind,
        "files": 3,
        "licenses": {license: full},
        "steps": [step | left for step in steps],
        "splits": {"train": amounts, "valid": held_out},
        "bytes_per_token": 4.0,
        "languages": {"zh" if samples[0] > "z" else "en": 1.0},
        "samples": samples,
    }


CARD: dict[str, Any] = {
    "fingerprint": "5d0c3b1a9e8f7766554433221100ffee",
    "tokenizer": {
        "file": "tokenizer.json",
        "hash": "00112233445566778899aabbccddeeff",
        "vocab_size": 8192,
        "eos_id": 8185,
        "signal_ids": [8190, 8191],
    },
    "validation_share": 0.01,
    "train": {"documents": 37_750, "bytes": 30_200_000, "tokens": 7_550_000},
    "languages": {"en": 4_350_000, "zh": 3_200_000},
    "sources": {
        "en-books": _card_source(
            "text", "public domain", 4_000_000, ["It was the best of times, it was the worst."]
        ),
        "zh-modern": _card_source(
            "text", "CC BY-SA 4.0", 3_200_000, ["从前有一个小孩子，住在山脚下的村子里。"]
        ),
        "rte": _card_source(
            "signals", "CC BY 4.0", 200_000, ["A cat sleeps. Question: an animal sleeps? 😈"]
        ),
        "chat": _card_source("instructions", "Apache-2.0", 150_000, ["Name a river.\n\nThe Yangtze."]),
    },
    "contamination": {"boolq": 12, "ceval": 3},
    "mixture": {
        "seed": {"en-books": 0.535, "zh-modern": 0.465},
        "sapling": {"en-books": 0.43, "zh-modern": 0.37, "rte": 0.1, "chat": 0.1},
        "tree": {"en-books": 0.43, "zh-modern": 0.37, "rte": 0.1, "chat": 0.1},
    },
}


def shape(stage: int) -> dict[str, Any]:
    s = STAGES[stage]
    axes = {k: s[k] for k in ("d_model", "n_heads", "d_ff", "n_layers")}
    return {
        "family": "flm",
        **axes,
        "n_kv_heads": s["n_heads"],
        "head_dim": 64,
        "vocab_size": 8192,
        "tied": True,
    }


def parameters(stage: int) -> int:
    s = shape(stage)
    return (
        s["n_layers"] * (4 * s["d_model"] ** 2 + 2 * s["d_model"] * s["d_ff"])
        + s["vocab_size"] * s["d_model"]
    )


def certificate(stage: int) -> dict[str, Any]:
    old, new = shape(stage - 1)["n_layers"], shape(stage)["n_layers"]
    layers = [{"layer": i, "from": i if i < old else None, "drift": 2e-7 * i} for i in range(new)]
    return {
        "exact": True,
        "precision": "fp32",
        "tolerance": 1e-5,
        "max_dlogit": 7.2e-7 * stage,
        "dloss": -1.2e-8,
        "loss_before": 4.1,
        "loss_after": 4.1,
        "layers": layers,
        "symmetry": {"d_ff": {"units": shape(stage)["d_ff"], "distinct": shape(stage)["d_ff"]}},
        "gradient": {"max_error": 3.1e-6, "worst": "blocks.0.ffn.up", "frozen_share": 0.0},
        "tokens": 2048,
    }


class FakeRun:
    """Writes the records of a run of 3 x `per_stage` steps up to `until`, from `now` backwards."""

    def __init__(
        self,
        folder: Path,
        *,
        per_stage: int = 200,
        name: str = "demo",
        price: float | None = 0.4,
        signals: bool = False,
    ) -> None:
        self.signals = signals
        self.folder, self.per_stage, self.name, self.price = folder, per_stage, name, price
        self.random = random.Random(7)
        self.seconds = self.flops = 0.0
        self.clock = time.time()
        folder.mkdir(parents=True, exist_ok=True)
        stages = [
            {**s, "tokens": per_stage * BATCH * SEQ, "seq_len": SEQ, "batch_size": BATCH} for s in STAGES
        ]
        model = {"family": "flm", "vocab_size": 8192, "head_dim": 64}
        data = {"path": "data/demo", "mixture": {"en-books": 0.535, "zh-modern": 0.465}}
        recipe = Recipe.model_validate(
            {"name": "demo", "model": model, "data": data, "optim": {"lr": 1e-3}, "stages": stages}
        )
        if signals:
            (folder / "data-card.json").write_text(json.dumps(CARD, ensure_ascii=False), encoding="utf-8")
        (folder / "recipe.json").write_text(recipe.model_dump_json(), encoding="utf-8")

    def _duration(self, steps: int) -> float:
        return sum(self._step_seconds(step // self.per_stage) for step in range(steps))

    def _step_seconds(self, stage: int) -> float:
        return 0.02 + parameters(stage) * 1e-7

    def write(
        self, *, killed_at: int | None = None, until: int | None = None, end: str | None = "done"
    ) -> Path:
        """Killed at one step and resumed from some steps before it; ends with an `end` record, if any."""
        until = until or 3 * self.per_stage
        self.clock -= 1.2 * self._duration(until)
        if killed_at:
            self._incarnation(1, 0, killed_at, None, None)
            self._incarnation(2, killed_at - killed_at % 40 - 20, until, end, killed_at)
        else:
            self._incarnation(1, 0, until, end, None)
        return self.folder

    def _incarnation(self, number: int, first: int, last: int, end: str | None, replay: int | None) -> None:
        recorder = Recorder(self.folder / "metrics.jsonl", number)
        tick = time.time

        def put(kind: str, **fields: Any) -> None:
            time.time = lambda: self.clock
            try:
                recorder.append(kind, **fields)
            finally:
                time.time = tick

        put(
            "start",
            step=first,
            argv=["growlm", "train", "demo.toml"],
            version="0.1.0",
            torch="2.13.0",
            threads=2,
            device="cpu",
            precision="bf16",
            name=self.name,
            price_per_hour=self.price,
            currency="USD",
            peak_tflops=0.31,
            total_steps=3 * self.per_stage,
            total_tokens=3 * self.per_stage * BATCH * SEQ,
        )
        if first:
            put("resume", step=first, path=f"checkpoints/step-{first:08d}")
        if not first:
            self._stage(put, 0)
        for step in range(first + 1, last + 1):
            stage = (step - 1) // self.per_stage
            if stage and step == stage * self.per_stage + 1:
                put(
                    "growth",
                    step=step - 1,
                    stage=stage,
                    tokens=(step - 1) * BATCH * SEQ,
                    **{"from": shape(stage - 1)},
                    to=shape(stage),
                    operator="masked",
                    depth="zero_block",
                    certificate=certificate(stage),
                )
                self._stage(put, stage)
            self._step(put, step, stage)
            if step == int(1.4 * self.per_stage):
                put("event", step=step, level="warning", message=f"step {step} skipped: loss is nan")
            if replay and step == replay:
                put("verified", step=step, replayed=replay - first, identical=True)
            if step % 40 == 20:
                put(
                    "save",
                    step=step,
                    path=f"checkpoints/step-{step:08d}",
                    seconds=0.2,
                    bytes=12 * parameters(stage),
                )
            if step % (self.per_stage // 8) == 0:
                self._measure(put, step, stage)
        if end:
            put("end", step=last, status=end)
        recorder.close()

    def _stage(self, put: Any, stage: int) -> None:
        put(
            "stage",
            step=stage * self.per_stage,
            stage=stage,
            name=STAGES[stage]["name"],
            shape=shape(stage),
            parameters=parameters(stage),
            tokens=self.per_stage * BATCH * SEQ,
            steps=self.per_stage,
            seq_len=SEQ,
            batch_size=BATCH,
        )

    def _loss(self, step: int) -> float:
        since_growths = [max(0, step - stage * self.per_stage) / self.per_stage for stage in (1, 2)]
        return 2.2 + 6.8 * step**-0.32 - sum(0.24 * (1 - math.exp(-3 * share)) for share in since_growths)

    def _step(self, put: Any, step: int, stage: int) -> None:
        took = self._step_seconds(stage) * self.random.uniform(0.93, 1.12)
        self.seconds += took
        self.clock += took
        self.flops += 6.0 * parameters(stage) * BATCH * SEQ
        bad = step == int(1.4 * self.per_stage)
        spike = self.random.lognormvariate(0, 0.25)
        put(
            "step",
            step=step,
            stage=stage,
            tokens=step * BATCH * SEQ,
            applied=not bad,
            loss=None if bad else self._loss(step) + self.random.gauss(0, 0.08),
            grad_norm=None if bad else spike * (0.5 + 4 / step**0.5),
            step_seconds=took,
            lr=STAGES[stage]["lr"] * min(1.0, step / 40, 3.2 * (1.0 - step / (3.04 * self.per_stage))),
            tokens_per_second=BATCH * SEQ / took,
            train_seconds=self.seconds,
            flops=self.flops,
            mfu=6.0 * parameters(stage) * BATCH * SEQ / took / 0.31e12,
            memory_bytes=900_000_000,
            mask=1.0,
            cost=self.seconds / 3600 * self.price if self.price else None,
            **(self._objectives(step) if self.signals else {}),
        )

    def _objectives(self, step: int) -> dict[str, Any]:
        """What a step says of its objectives; from a third of the run on they are three."""
        tokens, learnt = step * BATCH * SEQ, self._learnt(step)
        noise = self.random.gauss
        found = {"language": {"loss": self._loss(step) + noise(0, 0.08), "tokens": tokens * 8 // 10}}
        if step > self.per_stage:
            judged = None if step % 7 == 0 else 0.7 - 0.45 * learnt + noise(0, 0.05)
            found["teacher"] = {"loss": judged, "tokens": tokens // 10}
            found["instruction"] = {"loss": self._loss(step) * 0.8 + noise(0, 0.1), "tokens": tokens // 10}
        return {"objectives": found}

    def _learnt(self, step: int) -> float:
        return 1 - math.exp(-2 * max(0, step - self.per_stage) / self.per_stage)

    def _measure(self, put: Any, step: int, stage: int) -> None:
        losses = {"en-books": self._loss(step) - 0.1, "zh-modern": self._loss(step) + 0.42}
        more = {}
        if self.signals:
            learnt, done = self._learnt(step), step / (3 * self.per_stage)
            losses |= {"rte": 0.7 - 0.35 * learnt, "chat": self._loss(step) * 0.85}
            more = {
                "accuracy": {"rte": 0.5 + 0.31 * learnt},
                "epochs": {
                    "en-books": 0.43 * done,
                    "zh-modern": 0.9 * done,
                    "rte": 3.2 * done,
                    "chat": 1.4 * done,
                },
            }
        put("valid", step=step, stage=stage, tokens=step * BATCH * SEQ, losses=losses, **more)
        for prompt, texts in PROMPTS.items():
            put("sample", step=step, stage=stage, tokens=step * BATCH * SEQ, prompt=prompt, text=texts[stage])
