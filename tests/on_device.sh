#!/usr/bin/env bash
# on_device.sh DEVICE PROGRAM ARGUMENTS…: runs PROGRAM, a test or one of tessera's own, with one driver alone: opencl_pocl, opencl_intel or vulkan_lavapipe.
# Exit code 77, which ctest calls skipped, where the driver is not installed.
set -euo pipefail
device=$1
shift

# driver FILE WHAT_TO_DO: the file by which a loader finds the driver must be there.
driver() {
  if [ -e "$1" ]; then return 0; fi
  echo "skipped: $device is not here, there is no ${1:-file that names it}; $2"
  exit 77
}

case $device in
  opencl_pocl)
    driver /etc/OpenCL/vendors/pocl.icd "apt-get install pocl-opencl-icd"
    export OCL_ICD_VENDORS=/etc/OpenCL/vendors/pocl.icd
    ;;
  opencl_intel)
    driver "${TESSERA_TEST_INTEL_OPENCL:-}" "TESSERA_TEST_INTEL_OPENCL is its folder, which fetch_intel_opencl of examples/setup.sh makes and prints"
    export OCL_ICD_VENDORS=$TESSERA_TEST_INTEL_OPENCL
    unset TESSERA_FULL  # the whole matrix runs on PoCL, from the same kernel texts
    ;;
  vulkan_lavapipe)
    icd=/usr/share/vulkan/icd.d/lvp_icd.$(uname -m).json
    driver "$icd" "apt-get install mesa-vulkan-drivers"
    export VK_DRIVER_FILES=$icd VK_ICD_FILENAMES=$icd  # the name since 1.3.207 of the loader, and the one before
    ;;
  *)
    echo "error: there is no device $device; there are opencl_pocl, opencl_intel and vulkan_lavapipe" >&2
    exit 2
    ;;
esac
export TESSERA_DEVICE=${device%%_*} TESSERA_TEST_DEVICE=$device
exec "$@"
