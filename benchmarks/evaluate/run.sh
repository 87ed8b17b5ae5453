#!/bin/sh
# Every evaluation of a pretrained model and of the run that `make demo` grew, on one page.
#
#     benchmarks/evaluate/run.sh FOLDER SMOLLM2 DATA RUN
#
# SMOLLM2: SmolLM2-135M's Hugging Face folder (docs/hugging-face.md). DATA: labelled sets, named as docs/evaluation.md
# says. RUN: runs/demo/run. Needs the extra `eval`. Half an hour on two cores; what was killed goes on with the same command.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?a folder to work in} smol=${2:?the folder of SmolLM2} data=${3:?a folder with data} run=${4:?a run}
python=${PYTHON:-$here/../../.venv/bin/python}
growlm() { echo "+ growlm $*" >&2 && "$python" -m growlm "$@"; }

growlm eval iq "$run" "smollm2=$smol" --every-stage --precision bf16 --items 100 --out "$out/eval" \
    --task rules --task patterns --task interference
growlm eval iq "$run" "smollm2=$smol" --every-stage --precision bf16 --items 20 --data-dir "$data" --out "$out/eval" \
    --task superglue_iq --task clue_iq
growlm eval knowledge "$run" "smollm2=$smol" --every-stage --precision bf16 --limit 100 --data-dir "$data" --out "$out/eval" \
    --task hellaswag --task arc_challenge --task truthfulqa --task superglue
growlm eval knowledge "$run" "smollm2=$smol" --every-stage --precision bf16 --limit 2 --data-dir "$data" --out "$out/eval" \
    --task mmlu --task cmmlu
growlm eval table "$out/eval"
"$python" "$here/harness.py" --model "$smol" --data "$data" --limit 40
