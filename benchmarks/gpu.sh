#!/usr/bin/env bash
# What a machine with a GPU can show, each command within ten minutes and without a network:
#
#   benchmarks/gpu.sh OUT            everything
#   benchmarks/gpu.sh OUT NAME...    these alone
#   benchmarks/gpu.sh --list         their names
#
# JSON and log of each lie in OUT under its name; what fails or takes too long is said at the end, and the rest goes on.
# SIZE=tiny tries the commands on a CPU.
set -uo pipefail
cd "$(dirname "$0")/.."
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
PYTHON=${PYTHON:-python} SIZE=${SIZE:-sd15} LIMIT_SECONDS=${LIMIT_SECONDS:-600} OUT=.

step() { # CASE OPTION...: a step of a method against the plain implementation
  local case=$1
  shift
  "$PYTHON" -m benchmarks.train_step --size "$SIZE" --quick --turns 5 --cases "$case" --out "$OUT/step" "$@"
}

peak() { # SIZE OPTION...: Attune's step alone, its peak of memory against the estimate
  local size=$1
  shift
  "$PYTHON" -m benchmarks.peak --size "$size" --out "$OUT/peak" "$@"
}

declare -A COMMANDS=(
  [tests]='"$PYTHON" -m pytest -m gpu tests/gpu -q'
  [lora-fp32]='step "diffusion_dpo, LoRA" --precision fp32'
  [lora-bf16]='step "diffusion_dpo, LoRA" --precision bf16'
  [lora-fp16]='step "diffusion_dpo, LoRA" --precision fp16'
  [lora-fp16-graphs]='step "diffusion_dpo, LoRA" --precision fp16 --cuda-graphs'
  [lora-fp16-compile]='step "diffusion_dpo, LoRA" --precision fp16 --compile'
  [lora-fp16-compile-graphs]='step "diffusion_dpo, LoRA" --precision fp16 --compile --cuda-graphs'
  [lora-cached-fp16-compile-graphs]='step "diffusion_dpo, LoRA, reference_cache" --precision fp16 --compile --cuda-graphs'
  [full-fp16]='step "diffusion_dpo, full" --precision fp16'
  [full-bf16]='step "diffusion_dpo, full" --precision bf16'
  [full-fp16-compile-graphs]='step "diffusion_dpo, full" --precision fp16 --compile --cuda-graphs'
  [full-cached-fp16-compile-graphs]='step "diffusion_dpo, full, reference_cache" --precision fp16 --compile --cuda-graphs'
  [kto-fp16]='step "diffusion_kto, LoRA" --precision fp16'
  [mapo-fp16]='step "mapo, LoRA" --precision fp16'
  [tailorpo-fp16]='step "tailorpo, LoRA" --precision fp16 --turns 2'
  [d3po-fp16]='step "d3po, LoRA" --precision fp16 --turns 2'
  [ddpo-fp16]='step "ddpo, LoRA" --precision fp16 --turns 2'
  [dpok-fp16]='step "dpok, LoRA" --precision fp16 --turns 2'
  [sdxl-lora-fp16]='SIZE="${SIZE/sd15/sdxl}" step "diffusion_dpo, LoRA" --precision fp16'
  [sd35m-lora-fp16]='SIZE="${SIZE/sd15/sd35m}" step "diffusion_dpo, LoRA" --precision fp16'
  [sdxl-lora-fp16-compile-graphs]='SIZE="${SIZE/sd15/sdxl}" step "diffusion_dpo, LoRA" --precision fp16 --compile --cuda-graphs'
  [tailorpo-fp16-graphs]='step "tailorpo, LoRA" --precision fp16 --turns 2 --cuda-graphs'
  [batches-lora-fp16]='peak "$SIZE" --adapter lora --precision fp16 --batch 1 4 8 16 24'
  [batches-full-fp16]='peak "$SIZE" --adapter full --precision fp16 --batch 1 4 8 16'
  [peak-sdxl-lora]='peak "${SIZE/sd15/sdxl}" --adapter lora --precision fp16 --checkpointing --batch 1 4 8'
  [peak-sdxl-full]='peak "${SIZE/sd15/sdxl}" --adapter full --precision bf16 --checkpointing --batch 1 4'
  [peak-sdxl-full-8bit]='peak "${SIZE/sd15/sdxl}" --adapter full --precision bf16 --checkpointing --optimizer adamw_8bit --batch 1 4'
  [peak-sdxl-full-adafactor]='peak "${SIZE/sd15/sdxl}" --adapter full --precision bf16 --checkpointing --optimizer adafactor --batch 1 4'
  [rollout]='"$PYTHON" -m benchmarks.rollout --size "$SIZE" --precision fp16 --turns 2 --out "$OUT/rollout"'
  [evaluation]='"$PYTHON" -m benchmarks.evaluation --size "$SIZE" --precision fp16 --turns 2 --out "$OUT/evaluation"'
  [precision]='"$PYTHON" -m benchmarks.precision "$OUT/precision"'
  [start]='"$PYTHON" -m benchmarks.start --size "$SIZE" "$OUT/start"'
)
mapfile -t NAMES < <(printf '%s\n' "${!COMMANDS[@]}" | sort)

if [ "${1:-}" = --list ]; then
  printf '%s\n' "${NAMES[@]}"
  exit
fi
[ -n "${1:-}" ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
FOLDER=$1
shift
[ $# -gt 0 ] && NAMES=("$@")
export -f step peak
export PYTHON SIZE
failed=()
for name in "${NAMES[@]}"; do
  [ -n "${COMMANDS[$name]:-}" ] || { echo "no such command: $name (--list)" >&2; exit 2; }
  mkdir -p "$FOLDER/$name"
  echo "$name ..."
  OUT="$FOLDER/$name" timeout --kill-after=10 "$LIMIT_SECONDS" bash -c "${COMMANDS[$name]}" >"$FOLDER/$name/log.txt" 2>&1
  case $? in
    0) tail -n 3 "$FOLDER/$name/log.txt" ;;
    124 | 137) failed+=("$name (over $LIMIT_SECONDS s)") ;;
    *) failed+=("$name") && tail -n 5 "$FOLDER/$name/log.txt" ;;
  esac
done
[ ${#failed[@]} -eq 0 ] || { printf 'failed: %s\n' "${failed[@]}" >&2; exit 1; }
