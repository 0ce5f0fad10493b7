#!/usr/bin/env bash
# Everything that only a GPU can show, in one command and less than nine minutes on one H200: `make gpu-check`.
#
#   tests/gpu/check.sh [FOLDER]      the raw log goes to FOLDER (default: tests/bench/results)
#
# PYTHON chooses the interpreter (default: .venv/bin/python, else python3), for example one with another torch.
# Each part has a time limit and never stops the others. Without a GPU the same parts run on the CPU as far as they can,
# and the others say "needs a GPU". The last lines are a table of all parts.
set -u
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
FOLDER=${1:-tests/bench/results}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false OMP_NUM_THREADS=1
EPOCHTOP_HOME=$(mktemp -d)
export EPOCHTOP_HOME
trap 'rm -rf "$EPOCHTOP_HOME"' EXIT

DEVICE=$("$PYTHON" -c 'import torch; print("cuda:0" if torch.cuda.is_available() else "cpu")') || exit 2
NAME=$("$PYTHON" - <<'END'
import re, torch
name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
print(re.sub(r"[^a-z0-9]+", "-", f"{name} torch {torch.__version__}".lower()).strip("-"))
END
)
mkdir -p "$FOLDER"
LOG="$FOLDER/$(date +%F)-gpu-check-$NAME.txt"
: >"$LOG"
TABLE=""
FAILED=0
BEGAN=$SECONDS

row() { TABLE+=$(printf '%-18s %-12s %5s  %s' "$1" "$2" "$3" "$4")$'\n'; }

# part NAME LIMIT COMMAND...: runs the command, whose status 0 is a success.
part() {
    local name=$1 limit=$2 began=$SECONDS status first result output
    shift 2
    output=$(mktemp)
    printf '\n===== %s: %s\n' "$name" "$*" | tee -a "$LOG"
    [ "$DEVICE" = cpu ] && limit=$((limit * 5)) # a busy machine without a GPU proves nothing about speed
    timeout -k 10 "$limit" "$@" >"$output" 2>&1
    status=$?
    cat "$output" >>"$LOG"
    tail -n 3 "$output"
    first=$(grep -m 1 -aE '^(E  |FAIL|FAILED|.*: FAIL|.*Error)' "$output" | cut -c 1-150)
    case $status in
    0) result="passed" first=$(tail -n 1 "$output" | cut -c 1-150) ;;
    5) result="needs a GPU" first="no test was selected" ;;
    124 | 137) result="FAILED" first="over $limit s; ${first:-}" ;;
    *) result="FAILED" ;;
    esac
    if [ "$status" = 0 ] && grep -aqE '^[0-9]+ skipped' "$output"; then result="needs a GPU"; fi
    [ "$result" = FAILED ] && FAILED=1
    rm -f "$output"
    row "$name" "$result" $((SECONDS - began)) "$first"
}

# gpu_part: like part, on a machine with a GPU only.
gpu_part() {
    if [ "$DEVICE" = cpu ]; then row "$1" "needs a GPU" 0 ""; else part "$@"; fi
}

versions() {
    date -u +%FT%TZ
    git describe --always --dirty 2>/dev/null
    command -v nvidia-smi >/dev/null && nvidia-smi
    "$PYTHON" - <<'END'
import platform, torch
print("Python", platform.python_version(), "torch", torch.__version__, "CUDA", torch.version.cuda, "cuDNN", torch.backends.cudnn.version() if torch.cuda.is_available() else None)
END
}

run() { "$PYTHON" -P -m epochtop "$@"; }
TEST=("$PYTHON" -m pytest -q -p no:cacheprovider -rfE --tb=short)
export -f versions run
export PYTHON

# On a GPU, the limits add up to nine minutes.
part versions 20 bash -c versions
part train-eager 30 bash -c 'run train --device "$0" --executor eager --epochs 2000' "$DEVICE"
part train-auto 40 bash -c 'run train --device "$0" --epochs 30000' "$DEVICE"
part matrix 130 "$PYTHON" -m tests.gpu.matrix --device "$DEVICE" --seconds "$([ "$DEVICE" = cpu ] && echo 60 || echo 115)"
part sync 50 "${TEST[@]}" tests/gpu/test_sync.py tests/gpu/test_metrics_sync.py
part executors 50 "${TEST[@]}" tests/gpu/test_executor_sync.py -k "not compile"
part compile 60 "${TEST[@]}" tests/gpu/test_executor_sync.py -k compile
part sharded 40 "${TEST[@]}" tests/gpu/test_sharded.py
for experiment in anatomy profile transfer; do
    gpu_part "lab-$experiment" 20 bash -c 'run lab "$0" --quick --json --device "$1"' "$experiment" "$DEVICE"
done
gpu_part iris 60 "$PYTHON" -c 'from tests.bench import iris; iris.EPOCHS, iris.ROUNDS = 5_000, 2; iris.main("cuda:0")'
[ "$DEVICE" = cpu ] && part simulated 60 "${TEST[@]}" tests/device tests/execution/test_capture.py

{
    printf '\n===== %s, %s, %d s\n' "$NAME" "$(date +%F)" $((SECONDS - BEGAN))
    printf '%-18s %-12s %5s  %s\n' part result s "last line, or the first error"
    printf '%s' "$TABLE"
} | tee -a "$LOG"
echo "raw log: $LOG"
exit $FAILED
