#!/usr/bin/env bash
# oclgrind.sh PROGRAM: runs an op test on oclgrind, a simulator that watches every access: out-of-bounds, data races, misuse of the API.
# Its exit code says nothing of what it found, so the log must stay empty. The quick slice of cases: it simulates item by item.
set -euo pipefail
library=/usr/lib/oclgrind/liboclgrind-rt.so
if [ ! -f "$library" ]; then
  echo "skipped: oclgrind is not installed (apt-get install oclgrind)"
  exit 77
fi
log=$(mktemp "${TMPDIR:-/tmp}/tessera-oclgrind.XXXXXX")
trap 'rm -f "$log"' EXIT
env -u TESSERA_FULL TESSERA_DEVICE=opencl TESSERA_OPENCL_LIBRARY="$library" OCLGRIND_CHECK_API=1 OCLGRIND_DATA_RACES=1 OCLGRIND_MAX_ERRORS=20 OCLGRIND_LOG="$log" "$1" --gtest_brief=1
if [ -s "$log" ]; then
  cat "$log"
  exit 1
fi
