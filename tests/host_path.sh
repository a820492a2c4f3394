#!/usr/bin/env bash
# host_path.sh EVAL MODEL DRIVER…: what the Vulkan backend asks of a driver, where nothing need be computed: tessera-eval plans, compiles, uploads, records and
# submits a model's steps in every storage, under the Khronos validation layer, which must stay silent. A DRIVER is a file of NAME=VALUE lines, the
# environment of one driver, like Mesa's for phones over its no-op kernel:
#   LD_PRELOAD=…/libfreedreno_noop_drm_shim.so
#   VK_DRIVER_FILES=…/freedreno_devenv_icd.x86_64.json
#   FD_GPU_ID=740
set -euo pipefail
eval=$1 model=$2
shift 2
out=$(mktemp "${TMPDIR:-/tmp}/tessera-host-path.XXXXXX")
trap 'rm -f "$out"' EXIT
failed=0
for driver in "$@"; do
  mapfile -t environment <"$driver"
  for storage in default buffer image_buffer image2d image2d_array image3d; do
    forced=()
    if [ "$storage" != default ]; then forced=(--weights-in "$storage" --activations-in "$storage"); fi
    for way in '' VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT; do
      status=0
      env "${environment[@]}" TESSERA_CACHE=off VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation VK_LAYER_ENABLES="$way" \
        "$eval" greedy --model "$model" --device vulkan --tokens 5,6,7,8,9,10,11,12,13,14 --n 3 --ignore-eos "${forced[@]}" >"$out" 2>&1 || status=$?
      if [ "$status" -eq 0 ] && ! grep -qE 'VUID-|SYNC-|UNASSIGNED-|Validation (Error|Warning)' "$out"; then continue; fi
      failed=1
      echo "$driver, $storage, ${way:-core validation}: exit code $status"
      head -c 4000 "$out"
    done
  done
  echo "$driver: done"
done
exit "$failed"
