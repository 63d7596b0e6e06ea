#!/usr/bin/env bash
# Train on a GPU that is lent for a quarter of an hour: tests, benchmark, training, state back.
#
#   training/gpu_run.sh --audio PIECES --out OUT [--device cuda|cpu] [--minutes 9] [--pairs 4096]
#                       [--resume FILE] [--phases "tests bench train"] [--vectors 10000000]
#
# Each phase has a time limit, and a phase that fails or runs out of time does not stop the next.
# OUT receives logs, benchmark, weights and the packed run, each in a file of less than 16 MiB.
# docs/training.md#on-a-gpu-for-a-quarter-of-an-hour
set -u
device=cuda minutes=9 pairs=4096 phases="tests bench train" vectors=10000000
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
mkdir -p "$out" "$work/audio"

phase() { # NAME SECONDS COMMAND...
    local name=$1 seconds=$2 start=$SECONDS
    shift 2
    timeout -k 10 "$seconds" "$@" > "$out/$name.log" 2>&1
    echo "$name: exit code $? after $((SECONDS - start)) of at most $seconds s"
    tail -n 3 "$out/$name.log"
}

for piece in "$audio"/*.tar; do tar -xf "$piece" -C "$work/audio"; done

for name in $phases; do
    case $name in
        tests)
            phase tests 150 "$python" -m pytest -n 0 --no-cov -m gpu tests ;;
        bench)
            # A fifth of the music is enough to fit the synthetic vectors to.
            phase catalog 60 "$python" -m astound --catalog "$work/catalog" --device "$device" \
                add "$work"/audio/music/*[05].ogg
            phase bench 240 "$python" -m benchmarks gpu --distractors-from "$work/catalog" \
                --n-vectors "$vectors" --device "$device" --work "$work/shards" --out "$out/gpu.json" ;;
        train)
            weights=$(echo engine/weights/astound-v*.safetensors)
            start=(--init-from "$weights")
            [ -n "$resume" ] && start=(--resume "$resume")
            [ "$device" = cuda ] && start+=(--compile) && export TORCHDYNAMO_SUPPRESS_ERRORS=1
            # After the training: the clip head, then the calibration, which may be cut off.
            limit=$(awk "BEGIN { print int(60 * $minutes) + 180 }")
            phase train "$limit" "$python" -m astound --device "$device" train \
                --music "$work/audio/music" --noise "$work/audio/noise" \
                --speech "$work/audio/speech" --rooms "$work/audio/rooms" --out "$work/run" \
                --steps 1000000 --minutes "$minutes" --pairs "$pairs" --pairs-per-chunk "$pairs" \
                --no-codecs "${start[@]}"
            phase pack 150 "$python" -m astound train --out "$work/run" --pack "$out/run.pack"
            for file in weights.safetensors calibration.json log.jsonl; do
                [ -f "$work/run/$file" ] && cp "$work/run/$file" "$out"
            done ;;
        *) echo "unknown phase: $name" >&2 && exit 2 ;;
    esac
done
ls -l "$out"
