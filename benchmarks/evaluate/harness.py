"""The same benchmarks asked of the same folder by GrowLM and by lm-evaluation-harness's Hugging Face backend.

    python benchmarks/evaluate/harness.py --model FOLDER --data DATA --limit 40

Both in fp32, with the same rows and examples. Prints each score by both, and the largest difference of a
log-likelihood; exits with 1 if a score differs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lm_eval.models import huggingface

from growlm.evaluate.harness import HarnessModel
from growlm.evaluate.knowledge.ask import ask, tasks_of
from growlm.evaluate.knowledge.run import plan
from growlm.inference.source import open_model

TASKS = ["hellaswag", "arc_challenge", "truthfulqa", "boolq", "rte", "copa", "cb", "wic"]


def main() -> None:
    """Ask both, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--data", type=Path, required=True, help="folder with the sets")
    parser.add_argument("--limit", type=int, default=40, help="documents of each set")
    args = parser.parse_args()
    lm: Any = huggingface.HFLM
    theirs = lm(str(args.model), device="cpu", dtype="float32", batch_size=4)
    ours = HarnessModel(open_model(args.model, precision="fp32", device="cpu"))
    same, furthest = True, 0.0
    print(f"| {'task':<14} | metric   |  growlm |    HFLM |")
    print("|---|---|---:|---:|")
    for planned in plan(TASKS, args.data):
        assert planned.loaded is not None
        told = [ask(one, tasks_of(planned.loaded, planned.shots), args.limit) for one in (ours, theirs)]
        for task, mine in told[0].items():
            pairs = list(zip(mine, told[1][task], strict=True))
            for one, other in pairs:
                answers = zip(one["filtered_resps"], other["filtered_resps"], strict=True)
                furthest = max([furthest, *(abs(a[0] - b[0]) for a, b in answers)])
            for metric in (m for m in mine[0]["metrics"] if isinstance(mine[0][m], int | float)):
                means = [sum(row[metric] for row in rows) / len(rows) for rows in zip(*pairs, strict=True)]
                same &= abs(means[0] - means[1]) < 1e-4
                print(f"| {task:<14} | {metric:<8} | {means[0]:7.2%} | {means[1]:7.2%} |", flush=True)
    print(f"largest difference of a log-likelihood: {furthest:.1e} nats")
    raise SystemExit(not same)


if __name__ == "__main__":
    main()
