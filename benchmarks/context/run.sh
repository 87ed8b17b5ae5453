#!/bin/sh
# xPos against RoPE beyond the trained length: two small models that differ in one number, then `growlm eval context`.
#
#     benchmarks/context/run.sh FOLDER
#
# Needs the extra `demo` for its text, and some twenty minutes for each model on a core. What was killed goes on with
# the same command. The tables are printed; FOLDER/eval has the page and context.svg.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?a folder to work in}
python=${PYTHON:-$here/../../.venv/bin/python}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
growlm() { "$python" -m growlm "$@"; }
train() { # NAME RECIPE [--set ...]
    name=$1 recipe=$2
    shift 2
    growlm train "$here/$recipe" --run "$out/runs/$name" --set "data.path=$out/data" --set "name=$name" "$@"
}

plays=$("$python" -c "from growlm.data.demo_text import demo_sources; print(demo_sources()['en'][0])")
[ -d "$out/data" ] || growlm data prepare "$out/data" --source "en=$plays" --vocab-size 2048 --validation-share 0.1
train xpos xpos.toml
train xpos-512 xpos.toml --set model.xpos_scale_base=512.0
train rope rope.toml
growlm eval context "$out/runs/rope" "$out/runs/xpos-512" "$out/runs/xpos" --data "$out/data" --windows 192 --out "$out/eval"
