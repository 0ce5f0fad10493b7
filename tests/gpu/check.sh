#!/usr/bin/env bash
# Everything that only a GPU can show, in one command and less than nine minutes on one H200: `make gpu-check`.
#
#   tests/gpu/check.sh [FOLDER]      the raw log goes to FOLDER (default: tests/bench/results)
#
# PYTHON chooses the interpreter (default: .venv/bin/python, else python3), for example one with another torch.
# Each part has a time limit and a process of its own, and never stops the others. Without a GPU the same parts run on the
# CPU as far as they can, and the others say "needs a GPU"; "in part" means that the time ran out. The last lines are a table
# of all parts. Everything is written to the log at once, so that an interrupted check leaves what it has shown so far.
set -um # -m: a part may be waited for and interrupted, and does not ignore SIGINT
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
FOLDER=${1:-tests/bench/results}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false OMP_NUM_THREADS=1
EPOCHTOP_HOME=$(mktemp -d)
export EPOCHTOP_HOME
TABLE=""
FAILED=0
BEGAN=$SECONDS
LOG=/dev/null
NAME=""
CURRENT="" CHILD=""

# The table, also after an interruption.
end() {
    if [ -n "$CURRENT" ]; then
        kill -TERM "$CHILD" 2>/dev/null
        row "$CURRENT" interrupted 0 ""
    fi
    {
        printf '\n===== %s, %s, %d s\n' "$NAME" "$(date +%F)" $((SECONDS - BEGAN))
        printf '%-18s %-12s %5s  %s\n' part result s "last line, or the first error"
        printf '%s' "$TABLE"
    } | tee -a "$LOG"
    echo "raw log: $LOG"
    rm -rf "$EPOCHTOP_HOME"
}
row() { TABLE+=$(printf '%-18s %-12s %5s  %s' "$1" "$2" "$3" "$4")$'\n'; }

{ read -r DEVICE && read -r NAME; } < <(timeout -k 5 60 "$PYTHON" - <<'END'
import re, torch
gpu = torch.cuda.is_available()
print("cuda:0" if gpu else "cpu")
name = torch.cuda.get_device_name(0) if gpu else "no GPU"
print(re.sub(r"[^a-z0-9]+", "-", f"{name} torch {torch.__version__}".lower()).strip("-"))
END
)
[ -n "$NAME" ] || { echo "$PYTHON cannot import torch, or torch does not answer"; rm -rf "$EPOCHTOP_HOME"; exit 2; }
mkdir -p "$FOLDER"
LOG="$FOLDER/$(date +%F-%H%M%S)-gpu-check-$NAME.txt"
: >"$LOG"
trap end EXIT
trap 'exit 143' TERM INT HUP

# part NAME LIMIT COMMAND...: runs the command, whose status 0 is a success.
part() {
    local name=$1 limit=$2 began=$SECONDS status first result output written
    shift 2
    CURRENT=$name
    printf '\n===== %s: %s\n' "$name" "$*" | tee -a "$LOG"
    [ "$DEVICE" = cpu ] && limit=$((limit * 5)) # a busy machine without a GPU proves nothing about speed
    written=$(wc -c <"$LOG")
    timeout -k 10 "$limit" "$@" </dev/null >>"$LOG" 2>&1 &
    CHILD=$!
    wait "$CHILD"
    status=$?
    CURRENT=""
    output=$(mktemp)
    tail -c +$((written + 1)) "$LOG" >"$output"
    tail -n 3 "$output"
    first=$(grep -m 1 -aE '^(E  |FAIL|FAILED|.*: FAIL|.*Error)' "$output" | cut -c 1-150)
    case $status in
    0) result="passed" first=$(tail -n 1 "$output" | cut -c 1-150) ;;
    5) result="needs a GPU" first="no test was selected" ;;
    124 | 137) result="FAILED" first="over $limit s; ${first:-}" ;;
    *) result="FAILED" ;;
    esac
    if [ "$status" = 0 ] && grep -aqE '^[0-9]+ skipped' "$output"; then result="needs a GPU"; fi
    case "$result $first" in passed*"no time left"*) result="in part" ;; esac
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

# On a GPU, the limits add up to 520 seconds; each part that hangs takes ten seconds more at most.
part versions 20 bash -c versions
part train-eager 30 bash -c 'run train --device "$0" --executor eager --epochs 2000' "$DEVICE"
part train-auto 40 bash -c 'run train --device "$0" --epochs 30000' "$DEVICE"
# a broken capture may leave CUDA unusable, so these four have a process of their own
part singles 40 "$PYTHON" -m tests.gpu.matrix --singles --device "$DEVICE"
part matrix 100 "$PYTHON" -m tests.gpu.matrix --device "$DEVICE" --seconds "$([ "$DEVICE" = cpu ] && echo 60 || echo 85)"
part sync 50 "${TEST[@]}" tests/gpu/test_sync.py tests/gpu/test_metrics_sync.py
part executors 50 "${TEST[@]}" tests/gpu/test_executor_sync.py -k "not compile"
part sharded 40 "${TEST[@]}" tests/gpu/test_sharded.py
gpu_part iris 50 "$PYTHON" -c 'from tests.bench import iris; iris.EPOCHS, iris.ROUNDS = 5_000, 2; iris.main("cuda:0")'
for experiment in anatomy profile; do
    part "lab-$experiment" 15 bash -c 'run lab "$0" --quick --json --device "$1"' "$experiment" "$DEVICE"
done
part lab-transfer 15 bash -c 'run lab transfer --quick --json' # between the host and every device
# Inductor compiles for most of a minute: two tests of one job, which share its cache, and last, so that it delays nothing
part compile 55 "${TEST[@]}" tests/gpu/test_executor_sync.py -k "compile and (full or trace)"
[ "$DEVICE" = cpu ] && part simulated 60 "${TEST[@]}" tests/device tests/execution/test_capture.py
exit $FAILED
