#!/usr/bin/env bash
# Know before you pay, end to end: search on a proxy, predict a model of 16 times the non-embedding parameters
# from five small ones, train it, and print predicted against actual.
#   benchmarks/know/run.sh DATA OUT     DATA: a folder of `growlm data prepare` with sources en and zh, 4,096 tokens
set -eu
here=$(cd "$(dirname "$0")" && pwd)
data=$(realpath "$1")
out=$2
mkdir -p "$out"
export OMP_NUM_THREADS=1

# 1. The learning rate on a proxy of a sixth of the width, at the target's own length.
growlm search "$here/target.toml" --set "data.path=$data" --out "$out/search" --width 64 --tokens 1024000 \
    --search "optim.lr=2^-8..2^-5" --seeds 3

# 2. The ladder: five widths with the values found, twice each.
for width in 32 48 64 80 96; do
    for seed in 1 2; do
        growlm train "$out/search/recipe.toml" --run "$out/runs/w$width-s$seed" --set "seed=$seed" \
            --set "stages.0.d_model=$width" --set "stages.0.n_heads=$((width / 16))" --set "stages.0.d_ff=$((3 * width))"
    done
done

# 3. The prediction, before the target is trained; then the target, and the two side by side.
growlm predict "$out"/runs/w*-s? --target "$out/search/recipe.toml" | tee "$out/predicted.txt"
growlm train "$out/search/recipe.toml" --run "$out/runs/target"
growlm predict "$out"/runs/w*-s? --target "$out/runs/target" | tee "$out/compared.txt"
