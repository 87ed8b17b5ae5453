#!/bin/sh
# eFLM on a real pretrained model: SmolLM2-135M learns to judge statements, beside books.
#
#     benchmarks/freelm/smollm2.sh SMOLLM2 BOOKS.jsonl BABI_TRAIN.txt MMLU_DEV.jsonl SUPERGLUE FOLDER
#
# SMOLLM2: its Hugging Face folder (docs/hugging-face.md); SUPERGLUE: a folder of TASK-train.jsonl. Of the
# labelled sets training parts only. `before` measures the model as it came.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
model=$1 books=$2 babi=$3 mmlu=$4 superglue=$5 out=$6
python=${PYTHON:-$here/../../.venv/bin/python}
growlm() { "$python" -m growlm "$@"; }

mkdir -p "$out"
"$python" "$here/babi.py" "$babi" > "$out/babi-labelled.jsonl"
growlm data signals "$out/babi.jsonl" --task "babi=$out/babi-labelled.jsonl" --tasks "$here/babi.toml" --pairs 3 --force
growlm data signals "$out/mmlu.jsonl" --task "mmlu=$mmlu" --pairs 3 --force
tasks=
for name in rte boolq cb wic multirc copa; do tasks="$tasks --task $name=$superglue/$name-train.jsonl"; done
growlm data signals "$out/superglue.jsonl" $tasks --pairs 3 --force
[ -d "$out/grown" ] || growlm grow "$model" --to vocab_size=49280 --set ramp_steps=0 --out "$out/grown" # room for two tokens
[ -d "$out/ours" ] || growlm import "$out/grown" "$out/ours"
[ -d "$out/data" ] || growlm data prepare "$out/data" --source "en=$books" --signals "babi=$out/babi.jsonl" \
    --signals "mmlu=$out/mmlu.jsonl" --signals "superglue=$out/superglue.jsonl" \
    --tokenizer "$out/ours/checkpoints/step-00000000/tokenizer.json" --validation-share 0.1
train() {
    name=$1
    shift
    growlm train "$here/smollm2.toml" --run "$out/$name" --set "init=$out/ours" --set "data.path=$out/data" "$@"
}
train before --set stages.signals.tokens=2048 --set optim.lr=1e-12 --set schedule.warmup_steps=0
train run
