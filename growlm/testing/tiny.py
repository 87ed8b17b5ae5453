"""A bilingual corpus and a recipe so small that a whole run with three growths takes a second.

For tests, and for trying out a change: the text has enough structure to be learnt, the recipe grows every
axis by several operators, and changes batch, context and accumulation on the way.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

NOUNS = ("river", "mountain", "lantern", "teacher", "harbour", "letter", "garden", "winter")
VERBS = ("carries", "remembers", "follows", "answers", "crosses", "paints")
MINGCI = ("河流", "山峰", "灯笼", "老师", "港口", "书信", "花园", "冬天")
DONGCI = ("带走", "记得", "跟随", "回答", "穿过", "描绘")

VOCABULARY = 320
"""Size of the tokenizer to train on the corpus: the 256 bytes and a few merges."""

RECIPE = """\
name = "tiny"
seed = 7

[model]
family = "llama"
head_dim = 8
vocab_size = 320
tied = true

[data]
path = "data"
mixture = { en = 53.5, zh = 46.5 }

[optim]
lr = 5e-3
beta2 = 0.999

[schedule]
kind = "wsd"
warmup_steps = 3

[guard]
window = 16
grace_steps = 3

[eval]
every_tokens = 1024
tokens = 128
prompts = ["The river", "河流"]
sample_tokens = 4

[checkpoint]
every_seconds = 3600.0
every_steps = 3
keep = 2

[train]
precision = "fp32"
device = "cpu"
threads = 1

[[stages]]
name = "small"
d_model = 16
n_heads = 2
n_kv_heads = 1
d_ff = 32
n_layers = 1
tokens = 896
seq_len = 16
batch_size = 8

[[stages]]
name = "masked"
d_model = 24
n_heads = 4
n_kv_heads = 2
d_ff = 48
n_layers = 2
tokens = 1024
seq_len = 32
batch_size = 4
micro_batch_size = 2
[stages.growth]
operator = "masked"
depth = "masked"
ramp_steps = 5

[[stages]]
name = "clone"
d_model = 48
n_heads = 8
n_kv_heads = 4
d_ff = 96
n_layers = 3
tokens = 768
seq_len = 16
batch_size = 8
lr = 3e-3
lr_policy = "rewarm"
[stages.growth]
operator = "clone"
depth = "zero_block"
ramp_steps = 0

[[stages]]
name = "words"
d_model = 48
n_heads = 8
n_kv_heads = 4
d_ff = 96
n_layers = 3
vocab_size = 336
tokens = 1024
seq_len = 32
batch_size = 4
micro_batch_size = 1
mixture = { en = 1, zh = 3 }
[stages.growth]
ramp_steps = 4
rewarm_steps = 3
"""
"""Four stages of 7, 8, 6 and 8 steps."""


def write_corpus(folder: Path, documents: int = 120, seed: int = 0) -> dict[str, list[Path]]:
    """Write `en.jsonl` and `zh.jsonl` of so many documents each; the sources for `growlm data prepare`."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    sentences = {
        "en": lambda: f"The {draw.choice(NOUNS)} {draw.choice(VERBS)} the {draw.choice(NOUNS)}. ",
        "zh": lambda: f"{draw.choice(MINGCI)}{draw.choice(DONGCI)}{draw.choice(MINGCI)}。",
    }
    paths = {}
    for source, sentence in sentences.items():
        path = folder / f"{source}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for _ in range(documents):
                text = "".join(sentence() for _ in range(draw.randrange(6, 14)))
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        paths[source] = [path]
    return paths


def write_recipe(path: Path, data: Path) -> Path:
    """Write `RECIPE` for the prepared data at `data`; returns `path`."""
    path.write_text(RECIPE.replace('path = "data"', f"path = {json.dumps(str(data))}"), encoding="utf-8")
    return path
