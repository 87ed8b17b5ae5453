#!/bin/sh
# What needs a GPU, in one command: the model's numbers against the CPU's, then training speed (some 15 minutes).
# Needs torch with CUDA, numpy, pydantic, rich and xxhash; no network. Results go to benchmarks/results,
# and to $OUT if it is set.
set -eu
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD"
python benchmarks/gpu_check.py
python benchmarks/gpu_train.py "$@"
if [ -n "${OUT:-}" ]; then cp benchmarks/results/gpu_train.* "$OUT"/; fi
