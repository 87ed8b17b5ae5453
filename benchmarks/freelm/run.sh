#!/bin/sh
# FreeLM on one machine: a small model learns language, then goes on with teacher signals in three ways.
#
#     benchmarks/freelm/run.sh FOLDER [bAbI's qa1_single-supporting-fact_train.txt]
#
# Needs the extra `demo` (its text and its labelled reviews). A command that is killed goes on where it stopped.
# Prints language losses and held-out accuracy before and after; TOKENS (of each continuation) may be set.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?a folder to work in}
babi=${2:-}
tokens=${TOKENS:-1500000}
python=${PYTHON:-$here/../../.venv/bin/python}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
growlm() { "$python" -m growlm "$@"; }

"$python" "$here/labelled.py" "$out/text" ${babi:+--babi "$babi"}
plays=$("$python" -c 'from growlm.data.demo_text import demo_sources; print(*demo_sources()["en"])')
growlm data signals "$out/reviews.jsonl" --task "sentiment=$out/text/reviews.jsonl" --language zh --force
mixture='en = 40, zh = 35, reviews = 25'
if [ -n "$babi" ]; then
    growlm data signals "$out/babi.jsonl" --task "babi=$out/text/babi.jsonl" --tasks "$here/tasks.toml" \
        --pairs 3 --force
    mixture='en = 35, zh = 30, reviews = 20, babi = 15'
fi
[ -d "$out/data" ] || growlm data prepare "$out/data" --source "en=$plays" --source "zh=$out/text/zh.jsonl" \
    --signals "reviews=$out/reviews.jsonl" ${babi:+--signals "babi=$out/babi.jsonl"} \
    --vocab-size 4096 --validation-share 0.05

growlm train "$here/base.toml" --run "$out/runs/base" --set "data.path=$out/data"
go_on() { # NAME [--set ...]
    name=$1
    shift
    growlm train eflm --run "$out/runs/$name" --set "init=$out/runs/base" --set "data.path=$out/data" \
        --set "data.mixture={ $mixture }" --set "stages.signals.tokens=$tokens" "$@"
}
go_on before --set stages.signals.tokens=2048 --set optim.lr=1e-12 # one step that changes nothing: only measured
go_on language --set "data.mixture={ en = 53.5, zh = 46.5 }"
go_on unified
go_on alternating --set stages.signals.objectives=alternating
go_on classification --set objectives.head=classification
"$python" "$here/compare.py" "$out"
