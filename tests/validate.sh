#!/usr/bin/env bash
# validate.sh core|synchronization|gpu_assisted PLANTED PROGRAM: runs an op test (the quick slice of cases) on Vulkan under the Khronos validation
# layer, one way of validation at a time. The layer prints what it finds, so that nothing of it may be printed; that it works at all is seen from a
# planted mistake first.
set -euo pipefail
way=$1 planted=$2 program=$3
skip() { echo "skipped: $*"; exit 77; }

ls /usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json >/dev/null 2>&1 || [ -n "${VK_LAYER_PATH:-}" ] ||
  skip "the Vulkan validation layer is not installed (apt-get install vulkan-validationlayers)"

case $way in
core) enables='' filter=ABufferOfNoBytes expected=VUID-VkBufferCreateInfo-size ;;
synchronization) enables=VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT filter=AReadOfWhatIsBeingWritten expected=SYNC-HAZARD-READ-AFTER-WRITE ;;
gpu_assisted) enables=VK_VALIDATION_FEATURE_ENABLE_GPU_ASSISTED_EXT filter=AWritePastTheEnd expected='access out of bounds' ;;
*) echo "error: unknown way of validation: $way"; exit 2 ;;
esac
icd=/usr/share/vulkan/icd.d/lvp_icd.$(uname -m).json
if [ -e "$icd" ]; then export VK_DRIVER_FILES=$icd VK_ICD_FILENAMES=$icd; fi
export VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation VK_LAYER_ENABLES=$enables TESSERA_DEVICE=vulkan
unset TESSERA_FULL

out=$(mktemp "${TMPDIR:-/tmp}/tessera-validate.XXXXXX")
trap 'rm -f "$out"' EXIT
"$planted" --gtest_filter="*$filter" >"$out" 2>&1 || { cat "$out"; exit 1; }
if ! grep -q "$expected" "$out"; then
  # The layer of Vulkan 1.3.239 checks accesses only where the driver has VK_EXT_descriptor_indexing; Debian 12's lavapipe does not.
  if [ "$way" = gpu_assisted ]; then skip "the layer does not find a planted access out of bounds with this driver, so it would find no other"; fi
  cat "$out"
  echo "error: the layer did not report the planted mistake ($expected): its silence would mean nothing"
  exit 1
fi

status=0
"$program" --gtest_brief=1 >"$out" 2>&1 || status=$?
if grep -qE 'VUID-|SYNC-|UNASSIGNED-|Validation (Error|Warning)' "$out"; then status=1; fi
if [ "$status" -ne 0 ]; then head -c 20000 "$out"; fi
tail -n 3 "$out"
exit "$status"
