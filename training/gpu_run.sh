#!/usr/bin/env bash
# Train on a GPU that is lent for a quarter of an hour, or test and measure there.
#
#   training/gpu_run.sh --audio PIECES --out OUT [--phases train] [--minutes 9] [--device cuda|cpu]
#                       [--pairs 4096] [--resume FILE] [--vectors 10000000]
#   training/gpu_run.sh --audio PIECES --out OUT --phases tests,bench --minutes 3.5
#
# The phases share the minutes, and one that fails or runs out of time does not stop the next. Ends
# with 1 if training left no weights or no packed run.
# OUT receives logs, benchmark, weights and the packed run, each in a file of less than 16 MiB.
# docs/training.md#on-a-gpu-for-a-quarter-of-an-hour
set -u
device=cuda minutes=9 pairs=4096 phases=train vectors=10000000
audio='' out='' resume=''
while [ $# -gt 0 ]; do
    case $1 in
        --audio | --out | --device | --minutes | --pairs | --resume | --phases | --vectors)
            declare "${1#--}=${2?"$1 needs a value"}" && shift 2 ;;
        *) echo "unknown option: $1" >&2 && exit 2 ;;
    esac
done
: "${audio:?--audio is missing}" "${out:?--out is missing}"
python=${PYTHON:-python3}
work=${WORK:-$out.work} # on a fast disk; holds the decoded audio and the run, and is kept
end_s=$(awk "BEGIN { print int(60 * $minutes) }")
grace_s=5 # for a phase to die, and to copy files
mkdir -p "$out" "$work/audio"

# Share of the time that is left, for a phase and those after it.
declare -A weight=([tests]=5 [catalog]=2 [bench]=5 [train]=24)
queue=${phases//,/ }
queue=${queue/bench/catalog bench}

limit_s() { # PHASE... : the time of the first of the phases to come
    local sum=0 one
    for one in "$@"; do sum=$((sum + weight[$one])); done
    local limit=$(((end_s - SECONDS) * weight[$1] / sum - grace_s))
    echo $((limit > 1 ? limit : 1))
}

phase() { # NAME SECONDS COMMAND...
    local name=$1 seconds=$2 start=$SECONDS
    shift 2
    timeout -k $grace_s "$seconds" "$@" > "$out/$name.log" 2>&1
    echo "$name: exit code $? after $((SECONDS - start)) of at most $seconds s"
    tail -n 3 "$out/$name.log"
}

for name in $queue; do
    [ -n "${weight[$name]-}" ] || { echo "unknown phase: $name" >&2 && exit 2; }
done
for piece in "$audio"/*.tar; do tar -xf "$piece" -C "$work/audio"; done

status=0
# shellcheck disable=SC2086 # one argument for each phase
set -- $queue
while [ $# -gt 0 ]; do
    limit=$(limit_s "$@")
    case $1 in
        tests)
            phase tests "$limit" "$python" -m pytest -n 0 --no-cov -m gpu tests ;;
        catalog)
            # A fifth of the music is enough to fit the synthetic vectors to.
            phase catalog "$limit" "$python" -m astound --catalog "$work/catalog" \
                --device "$device" add "$work"/audio/music/*[05].ogg ;;
        bench)
            phase bench "$limit" "$python" -m benchmarks gpu \
                --distractors-from "$work/catalog" --n-vectors "$vectors" --device "$device" \
                --work "$work/shards" --out "$out/gpu.json" ;;
        train)
            weights=$(echo engine/weights/astound-v*.safetensors)
            start=(--init-from "$weights")
            [ -n "$resume" ] && start=(--resume "$resume")
            for kind in tunes voices; do
                [ -d "$work/audio/$kind" ] && start+=("--$kind" "$work/audio/$kind")
            done
            [ "$device" = cuda ] && start+=(--compile) && export TORCHDYNAMO_SUPPRESS_ERRORS=1
            rm -f "$work"/run/{weights.safetensors,run.pack}
            # The rest is for validation, clip head and calibration, which may be cut off.
            train_minutes=$(awk "BEGIN { print 0.7 * $limit / 60 }")
            phase train "$limit" "$python" -m astound --device "$device" train \
                --music "$work/audio/music" --noise "$work/audio/noise" \
                --speech "$work/audio/speech" --rooms "$work/audio/rooms" --out "$work/run" \
                --steps 1000000 --minutes "$train_minutes" --pairs "$pairs" \
                --pairs-per-chunk "$pairs" --no-codecs --pack "$work/run/run.pack" "${start[@]}"
            for file in weights.safetensors run.pack calibration.json log.jsonl; do
                [ -f "$work/run/$file" ] && cp "$work/run/$file" "$out"
            done
            [ -f "$work/run/weights.safetensors" ] && [ -f "$work/run/run.pack" ] || status=1 ;;
    esac
    shift
done
ls -l "$out"
exit $status
