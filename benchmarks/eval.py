"""How fast a model is evaluated, against lm-evaluation-harness's own Hugging Face backend and transformers.

    python benchmarks/eval.py --model FOLDER --data hellaswag-validation.jsonl.gz

Log-likelihoods of HellaSwag's first items (0 examples, the harness's prompts) by GrowLM and by the harness's
HFLM at several batch sizes; and greedy generation of as many tokens for 8 prompts by GrowLM and by
transformers' `generate`. Both in fp32 and bf16, with the same weights. Every way is a process of its own; all
of them stay, and take turns at slices of the items, so that a machine that changes its speed does so for
all. A way's speed is that of all its slices together; ratios are medians over the slices. GrowLM runs with
the malloc settings that its own commands use; the others run as they come, and `--tuned` gives them the same.

Answers are compared, too: likelihoods and texts have to be the same in fp32. Needs lm-eval and transformers,
and a few GB of memory: one copy of the model for each way. `--model` is a Hugging Face folder of a kind that
GrowLM knows, `--data` the file of Hugging Face's dataset as JSON lines. With 500 items of SmolLM2-135M all
takes about an hour on two cores; `--items 20 --slices 2 --ways growlm hflm:8` shows that it works.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import Others, table, wait_until_quiet, write_results

from growlm.train.malloc import SETTINGS

LIKELIHOODS = ["growlm", "hflm:1", "hflm:4", "hflm:8", "hflm:16", "hflm:64"]
GENERATION = ["growlm-generate", "transformers-generate"]
ROWS = 8

Pair = tuple[str, str]


def main() -> None:
    """Start the ways, let them take turns, write the tables."""
    args = arguments()
    if args.way:
        work(args)
        return
    pairs, prompts = hellaswag(args.data, args.items)
    text, data = "", {}
    for dtype in args.dtypes:
        for title, ways, asked in (
            ("Log-likelihoods", [w for w in args.ways if not w.endswith("-generate")], pairs),
            ("Generation", [w for w in args.ways if w.endswith("-generate")], prompts),
        ):
            if ways:
                wait_until_quiet(args.max_busy)
                found = take_turns(args, dtype, ways, slices(asked, args.slices))
                text += f"\n## {title}, {dtype}\n\n" + told(ways, found)
                data[f"{title}, {dtype}"] = {k: v for k, v in found.items() if k != "answers"}
    write_results("eval", f"{args.items} items of HellaSwag, {args.tokens} tokens for each of {ROWS} prompts "
                  f"in a batch, on {args.device} with {args.threads} threads.\n" + text, data)  # fmt: skip


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="Hugging Face folder")
    parser.add_argument("--data", type=Path, required=True, help="hellaswag-validation.jsonl or .jsonl.gz")
    parser.add_argument("--items", type=int, default=500, help="of HellaSwag, from its first on")
    parser.add_argument("--slices", type=int, default=5, help="that the ways take turns at")
    parser.add_argument("--tokens", type=int, default=128, help="to generate for each prompt")
    parser.add_argument(
        "--ways", nargs="+", default=LIKELIHOODS + GENERATION, help="default: all, %(default)s"
    )
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tuned", action="store_true", help="GrowLM's malloc settings for all")
    parser.add_argument("--max-busy", type=float, default=0.2, help="wait until fewer cores are in use")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    return parser.parse_args()


def hellaswag(path: Path, items: int) -> tuple[list[list[Pair]], list[list[str]]]:
    """Per item the (context, continuation) of its endings, as the harness asks; per batch 8 prompts."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        docs = [json.loads(line) for _, line in zip(range(items), file, strict=False)]
    pairs = []
    for doc in docs:
        query = clean(f"{doc['activity_label']}: {doc['ctx_a']} {doc['ctx_b'].capitalize()}")
        pairs.append([(query, " " + clean(ending)) for ending in doc["endings"]])
    queries = [item[0][0] for item in pairs]
    batches = [queries[i : i + ROWS] for i in range(0, min(len(queries), 5 * ROWS), ROWS)]
    return pairs, [batch for batch in batches if len(batch) == ROWS]


def clean(text: str) -> str:
    """The harness's `preprocess` of HellaSwag."""
    text = re.sub("\\[.*?\\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def slices(asked: list[Any], count: int) -> list[list[Any]]:
    """Items in turn: each slice has what a way does at once, one after the other flattened."""
    size = -(-len(asked) // count)
    parts = [asked[i : i + size] for i in range(0, len(asked), size)]
    return [[one for item in part for one in item] for part in parts]


# --- the ways, from outside ------------------------------------------------------------------------


def take_turns(
    args: argparse.Namespace, dtype: str, ways: list[str], parts: list[list[Any]]
) -> dict[str, Any]:
    """Seconds of each way for each slice, its answers, the matmul speed before it, and who else was busy."""
    running = {way: start(args, way, dtype) for way in ways}
    found: dict[str, Any] = {"answers": {w: [] for w in ways}, "probes": [], "others": []}
    found |= {"seconds": {w: [] for w in ways}, "cpu_seconds": {w: [] for w in ways}}
    for process in running.values():
        ask(process, parts[0][: 4 * ROWS])  # warm
    for number, part in enumerate(parts):
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            with Others() as others:
                answer = ask(running[way], part)
            found["answers"][way] += answer["answers"]
            found["seconds"][way].append(answer["seconds"])
            found["cpu_seconds"][way].append(answer["cpu_seconds"])
            found["probes"].append(answer["gflops"])
            found["others"].append(max(0.0, others.cores - answer["cpu_seconds"] / answer["seconds"]))
    for process in running.values():
        process.stdin.close()
        process.wait()
    found["same"] = {way: difference(found["answers"][ways[0]], found["answers"][way]) for way in ways}
    return found


def start(args: argparse.Namespace, way: str, dtype: str) -> Any:
    """A process that waits for slices."""
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
    if way.startswith("growlm") or args.tuned:
        environment |= SETTINGS
    command = [sys.executable, __file__, "--model", args.model, "--data", str(args.data), "--way", way]
    command += ["--dtype", dtype, "--device", args.device, "--tokens", str(args.tokens)]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


def ask(process: Any, part: list[Any]) -> dict[str, Any]:
    """The answer to a slice."""
    process.stdin.write(json.dumps(part) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def difference(one: list[Any], other: list[Any]) -> str:
    """The largest difference of likelihoods, or how many texts are the same."""
    if one and isinstance(one[0], str):
        return f"{sum(a == b for a, b in zip(one, other, strict=True))} of {len(one)} texts"
    return f"{max(abs(a - b) for a, b in zip(one, other, strict=True)):.1e}"


def told(ways: list[str], found: dict[str, Any]) -> str:
    """The table: seconds, how many times as long as the first way, the same answers or not."""
    rows = []
    for way in ways:
        ratios, cpu = (
            [b / a for a, b in zip(found[key][ways[0]], found[key][way], strict=True)]
            for key in ("seconds", "cpu_seconds")
        )
        rows.append(
            [way, f"{sum(found['seconds'][way]):.1f}", f"{statistics.median(ratios):.2f}",
             f"{min(ratios):.2f} to {max(ratios):.2f}", f"{statistics.median(cpu):.2f}", found["same"][way]]
        )  # fmt: skip
    header = ["way", "seconds", f"x {ways[0]}", "slices", "x its CPU time", "difference"]
    probe, others = statistics.median(found["probes"]), statistics.median(found["others"])
    return table(header, rows) + f"\nMatmul probe {probe:.0f} GFLOP/s; others used {others:.1f} cores.\n"


# --- the ways, from inside -------------------------------------------------------------------------


def work(args: argparse.Namespace) -> None:
    """Answer slices from standard input."""
    answer = WAYS[args.way.partition(":")[0]](args)
    for line in sys.stdin:
        part = json.loads(line)
        gflops = probe(args)
        started, cpu = time.perf_counter(), time.process_time()
        answers = answer(part)
        told = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
        print(json.dumps(told | {"answers": answers, "gflops": gflops}), flush=True)


def probe(args: argparse.Namespace) -> float:
    """GFLOP/s of a matmul, in the dtype."""
    import torch

    a = torch.ones(
        1024, 1024, dtype=torch.bfloat16 if args.dtype == "bf16" else torch.float32, device=args.device
    )
    b = a @ a
    started = time.perf_counter()
    for _ in range(10):
        b = a @ a
    b[0, 0].item()
    return 10 * 2 * 1024**3 / (time.perf_counter() - started) / 1e9


def growlm(args: argparse.Namespace) -> Any:
    """Likelihoods by GrowLM."""
    from growlm.inference.requests import Choice
    from growlm.inference.source import open_model

    model: Any = open_model(args.model, precision=args.dtype, device=args.device)

    def answer(part: list[Pair]) -> list[float]:
        found = dict(model.likelihoods([Choice(*pair) for pair in part]))
        return [found[i].logprob for i in range(len(part))]

    return answer


def hflm(args: argparse.Namespace) -> Any:
    """Likelihoods by the harness."""
    from lm_eval.api.instance import Instance
    from lm_eval.models import huggingface

    lm: Any = huggingface.HFLM
    dtype = "bfloat16" if args.dtype == "bf16" else "float32"
    model = lm(args.model, device=args.device, dtype=dtype, batch_size=int(args.way.partition(":")[2]))

    def answer(part: list[Pair]) -> list[float]:
        asked = [Instance("loglikelihood", {}, tuple(pair), i) for i, pair in enumerate(part)]
        return [logprob for logprob, _ in model.loglikelihood(asked, disable_tqdm=True)]

    return answer


def growlm_generate(args: argparse.Namespace) -> Any:
    """Texts by GrowLM, none of which ends before its tokens are used up."""
    from growlm.inference.requests import Prompt
    from growlm.inference.source import open_model

    model: Any = open_model(args.model, precision=args.dtype, device=args.device)
    model.text.ends = frozenset()

    def answer(part: list[str]) -> list[str]:
        written = []
        for i in range(0, len(part), ROWS):
            found = dict(model.completions([Prompt(text, args.tokens) for text in part[i : i + ROWS]]))
            written += [found[j].text for j in range(len(found))]
        return written

    return answer


def transformers_generate(args: argparse.Namespace) -> Any:
    """The same by transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype).to(args.device).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(args.model, padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    model.generation_config.eos_token_id = None

    def answer(part: list[str]) -> list[str]:
        written = []
        for i in range(0, len(part), ROWS):
            asked = tokenizer(part[i : i + ROWS], return_tensors="pt", padding=True).to(args.device)
            ids = model.generate(**asked, max_new_tokens=args.tokens, do_sample=False)
            new = ids[:, asked.input_ids.shape[1] :]
            written += tokenizer.batch_decode(new, skip_special_tokens=True)
        return written

    return answer


WAYS: dict[str, Any] = {
    "growlm": growlm,
    "hflm": hflm,
    "growlm-generate": growlm_generate,
    "transformers-generate": transformers_generate,
}

if __name__ == "__main__":
    main()
