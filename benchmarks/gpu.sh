#!/bin/sh
# What needs a GPU, in one command: the model's numbers against the CPU's, then training speed (some 15 minutes).
# Needs torch with CUDA, numpy, pydantic, rich and xxhash; no network. Results go to benchmarks/results,
# and to $OUT if it is set. With EVAL_MODEL (a Hugging Face folder) and EVAL_DATA (hellaswag-validation.jsonl),
# evaluation is measured, too, which also needs lm-eval and transformers.
set -eu
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD"
python benchmarks/gpu_check.py
python benchmarks/gpu_train.py "$@"
if [ -n "${OUT:-}" ]; then cp benchmarks/results/gpu_train.* "$OUT"/; fi
if [ -n "${EVAL_MODEL:-}" ]; then
  python benchmarks/eval.py --device cuda --model "$EVAL_MODEL" --data "$EVAL_DATA" --max-busy 99
  if [ -n "${OUT:-}" ]; then cp benchmarks/results/eval.* "$OUT"/; fi
fi
