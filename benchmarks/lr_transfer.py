"""Does the best learning rate stay where it is as the model grows? On real text, under each parametrization.

    python benchmarks/lr_transfer.py --folder /tmp/lr-transfer

Widths 32 to 256 at three layers under `sp` and `mup`, depths 2 and 8 at width 64 under `mup` and `completep`;
every learning rate is twice the one before. With as many layers as its base, `completep` is `mup`.
The smallest size is trained at every rate, the others around the best one.
The text is English books and modern Chinese from `--corpora`, or else that of `growlm demo`. Runs that are
done in `--folder` are not done again.
"""

from __future__ import annotations

import argparse
import gzip
import math
import time
from dataclasses import asdict
from pathlib import Path

from common import Others, table, write_results

from growlm.data.demo_text import demo_sources
from growlm.data.prepare import prepare
from growlm.plan.svg import COLORS, Chart, grid
from growlm.recipe.schema import Recipe
from growlm.search.space import short
from growlm.search.transfer import Sweep, sweep

RESULTS = Path(__file__).parent / "results"
WIDTHS, DEPTHS = (32, 64, 128, 256), (2, 8)
RATES = [2.0**n for n in range(-10, -3)]
CORPORA = {"en": "en-books.jsonl.gz", "zh": "zh-modern.jsonl.gz"}
TEXT_BYTES = 2_000_000  # of each corpus: every token is seen once
VOCABULARY, SEQ_LEN, BATCH, STEPS, HEAD_DIM = 512, 128, 8, 250, 32


def main() -> None:
    """Train all, and write the table and the picture."""
    parser = argparse.ArgumentParser(description="The best learning rate over width and depth.")
    parser.add_argument("--folder", type=Path, required=True, help="for the data and the runs")
    parser.add_argument("--corpora", type=Path, default=Path("../shared/data/corpora"))
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    data = prepared(args.folder / "data", args.corpora)
    started, sweeps = time.monotonic(), list[Sweep]()
    with Others() as others:
        for axis, kinds in (("width", ("sp", "mup")), ("depth", ("mup", "completep"))):
            base: dict[int, dict[float, float]] = {}
            for kind in kinds:
                sweeps.append(one(args.folder, args.workers, data, kind, axis, base))
                smallest = min(sweeps[-1].losses)
                base = {smallest: sweeps[-1].losses[smallest]}
                (RESULTS / "lr_transfer.svg").write_text(picture(sweeps), encoding="utf-8")
                write_results("lr_transfer", report(sweeps), {"sweeps": [facts(s) for s in sweeps]})
    print(f"{(time.monotonic() - started) / 60:.0f} minutes, others used {others.cores:.1f} cores")


def prepared(folder: Path, corpora: Path) -> Path:
    """The text as token shards."""
    if folder.exists():
        return folder
    sources = demo_sources()
    if all((corpora / name).is_file() for name in CORPORA.values()):
        sources = {
            name: [beginning(corpora / file, folder.parent / f"{name}.jsonl")]
            for name, file in CORPORA.items()
        }
    prepare(folder, sources, vocab_size=VOCABULARY, validation_share=0.05)
    return folder


def beginning(source: Path, target: Path) -> Path:
    """The first documents of a corpus."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(source, "rb") as file:
        target.write_bytes(b"".join(file.readlines(TEXT_BYTES)))
    return target


def one(
    folder: Path, workers: int, data: Path, kind: str, axis: str, base: dict[int, dict[float, float]]
) -> Sweep:
    """All sizes under one parametrization. The smallest is the base shape, where all are one training: `base`
    are its losses if they are known."""
    width, layers = (max(WIDTHS), 3) if axis == "width" else (64, max(DEPTHS))
    model = {"family": "llama", "head_dim": HEAD_DIM, "vocab_size": VOCABULARY, "parametrization": kind}
    if kind != "sp":
        model["mup_base_d_model"] = min(WIDTHS) if axis == "width" else width
    if kind == "completep":
        model["mup_base_n_layers"] = layers if axis == "width" else min(DEPTHS)
    target = Recipe.model_validate(
        {
            "name": f"lr-transfer-{kind}",
            "model": model | {"tied": False, "init_std": 0.05},
            "data": {"path": str(data), "mixture": {"en": 1.0, "zh": 1.0}},
            "optim": {"lr": RATES[0]},
            "schedule": {"kind": "linear", "warmup_steps": 25, "min_lr_ratio": 0.0},
            "eval": {"tokens": 16_384},
            "train": {"device": "cpu", "precision": "bf16"},
            "stages": [
                {
                    "name": "only",
                    "d_model": width,
                    "n_heads": width // HEAD_DIM,
                    "d_ff": 3 * width,
                    "n_layers": layers,
                    "tokens": STEPS * BATCH * SEQ_LEN,
                    "seq_len": SEQ_LEN,
                    "batch_size": BATCH,
                }
            ],
        }
    )
    say = lambda text: print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)  # noqa: E731
    if axis == "width":
        return sweep(kind, target, "width", WIDTHS, RATES, folder / "runs", workers, say, base)
    return sweep(kind, target, "depth", DEPTHS, RATES[3:6], folder / "runs", workers, say, base)


def report(sweeps: list[Sweep]) -> str:
    """A table for each sweep: losses, the best rate, and by how many notches it moved."""
    parts = []
    for s in sweeps:
        rows, rates = [], sorted({rate for row in s.losses.values() for rate in row})
        for size in sorted(s.losses):
            best = s.best(size)
            shown = [cell(s.losses[size].get(rate), rate == best) for rate in rates]
            vertex = s.vertex(size)
            between = "-" if vertex is None else f"2^{math.log2(vertex):.2f}"
            rows.append([str(size), *shown, short(best), f"{s.moved()[size]:+d}", between])
        head = [s.axis, *map(short, rates), "best", "notches", "parabola"]
        farthest = max(s.moved().values(), key=abs)
        times = max(s.losses) // min(s.losses)
        verdict = f"The best rate moves by at most {abs(farthest)} notches over {times}x {s.axis}."
        parts.append(f"## {s.label} over {s.axis}\n\n{verdict}\n\n{table(head, rows)}")
    settings = (
        f"Validation loss after {STEPS} steps of {BATCH} x {SEQ_LEN} tokens, linear decay to 0, AdamW, bf16; "
        f"llama, untied, heads of {HEAD_DIM}, {VOCABULARY} ids. Widths have 3 layers and the base width "
        f"{min(WIDTHS)}; depths have width 64 and {min(DEPTHS)} layers in the base. At the base shape all "
        "are one training, and with its layers `completep` is `mup`. Other sizes start at the best rate of "
        "the size before and go on to twice and half of the best until it lies between.\n\n"
        "![loss over learning rate](lr_transfer.svg)\n\n"
    )
    return settings + "\n".join(parts)


def cell(loss: float | None, best: bool) -> str:
    """A loss, bold if it is the best; nothing where none was needed."""
    if loss is None:
        return ""
    text = f"{loss:.4f}" if math.isfinite(loss) else "diverged"
    return f"**{text}**" if best else text


def picture(sweeps: list[Sweep]) -> str:
    """Loss over learning rate, a chart for each sweep and a line for each size."""
    charts = []
    lowest = min(loss for s in sweeps for row in s.losses.values() for loss in row.values())
    for s in sweeps:
        chart = Chart(
            title=f"{s.label} over {s.axis}",
            x_label="learning rate",
            y_label="validation loss",
            x_log=True,
            x_ticks=sorted({rate for row in s.losses.values() for rate in row}),
            x_format=short,
            y_range=(lowest - 0.1, lowest + 2.0),
            width=600,
        )
        for index, size in enumerate(sorted(s.losses)):
            rates, color = sorted(s.losses[size]), COLORS[index]
            chart.line(rates, [s.losses[size][r] for r in rates], f"{s.axis} {size}", color=color)
            chart.points([s.best(size)], [s.losses[size][s.best(size)]], color=color, radius=6)
        charts.append(chart)
    return grid(charts, columns=2, title="Where the best learning rate lies")


def facts(s: Sweep) -> dict[str, object]:
    """A sweep as JSON."""
    finite = {
        size: {short(r): x if math.isfinite(x) else None for r, x in row.items()}
        for size, row in s.losses.items()
    }
    return asdict(s) | {
        "losses": finite,
        "moved": s.moved(),
        "vertex": {size: s.vertex(size) for size in s.losses},
    }


if __name__ == "__main__":
    main()
