#!/usr/bin/env bash
# bash tests/run.sh [--full] [arguments of ctest]: installs what the tests need, builds them in build/tests, runs them.
# The quick tier takes minutes. --full adds what is slow: tests labelled full, and the unit tests under address and undefined sanitizers.
# For example `bash tests/run.sh -R tokenizer` runs the tests whose names match. The exit code is 0 only when everything passed.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=examples/setup.sh
source "$root/examples/setup.sh"
# shellcheck source=bench/mobile/drivers.sh
source "$root/bench/mobile/drivers.sh"

tier=quick
if [ "${1:-}" = --full ]; then tier=full; shift; fi
case ${1:-} in -h | --help) sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;; esac

install_packages g++ cmake ninja-build libexpected-dev nlohmann-json3-dev libutf8proc-dev libxxhash-dev libcli11-dev libedit-dev \
  opencl-headers ocl-icd-libopencl1 pocl-opencl-icd libvulkan-dev libvulkan1 mesa-vulkan-drivers libshaderc-dev glslang-dev \
  libgtest-dev libbenchmark-dev libeigen3-dev \
  clang glslang-tools spirv-tools oclgrind git python3 ccache tmux pkg-config

if [ "$tier" = full ]; then install_packages g++-aarch64-linux-gnu qemu-user-static vulkan-validationlayers; fi

# Tests that want the real model take it from here; where it cannot be had each of them says by name that it was skipped.
if [ -z "${TESSERA_TEST_MODEL:-}" ]; then
  TESSERA_TEST_MODEL=$(fetch_model) || { warn "no model: the tests that need it will be skipped"; TESSERA_TEST_MODEL=""; }
fi
export TESSERA_TEST_MODEL

# The third device of the tests, beside PoCL and lavapipe.
if [ "$tier" = full ] && [ -z "${TESSERA_TEST_INTEL_OPENCL:-}" ]; then
  TESSERA_TEST_INTEL_OPENCL=$(fetch_intel_opencl) || { warn "no OpenCL driver of Intel's: the tests on it will be skipped"; TESSERA_TEST_INTEL_OPENCL=""; }
fi
export TESSERA_TEST_INTEL_OPENCL=${TESSERA_TEST_INTEL_OPENCL:-}

# Compilers of mobile GPUs, for the test mobile/budgets.
if [ "$tier" = full ]; then fetch_mobile_drivers >/dev/null || warn "no compilers of mobile GPUs: mobile/budgets will be skipped"; fi

# run_tests TITLE FOLDER CTEST_ARGUMENTS…: ctest's own output, live.
run_tests() {
  local title=$1 folder=$2
  shift 2
  say "test $title …"
  if ctest --test-dir "$folder" --output-on-failure --no-tests=error -j 2 "$@"; then return 0; fi
  say "error: tests failed ($title). One of them again: bash tests/run.sh -R NAME; with its output: ctest --test-dir $folder -V -R NAME"
  return 1
}

status=0
options=(-D TESSERA_BUILD_TESTS=ON -D TESSERA_BUILD_BENCH=ON -D TESSERA_BUILD_EXAMPLES=ON -D TESSERA_WERROR=ON
  -D CMAKE_EXPORT_COMPILE_COMMANDS=ON)
if [ "$tier" = full ]; then
  # clang++ -O0 compiles what is sanitized in a quarter of the time that g++ -O1 takes, and is the second compiler that everything passes.
  sanitized=("${options[@]}" -D CMAKE_CXX_COMPILER=clang++ -D CMAKE_BUILD_TYPE=Debug -D CMAKE_CXX_FLAGS_DEBUG="-O0 -g1")
  build_tessera "$root/build/sanitize" tessera_sanitized_tests "${sanitized[@]}" -D TESSERA_SANITIZE=address,undefined
  export LSAN_OPTIONS="suppressions=$root/tests/lsan.supp:print_suppressions=0"
  # GCC 12's runtime guesses how large a library's thread-local block is from the 16 bytes before it, and takes a block that happens to begin at
  # byte 16 of a page for one of glibc 2.19's: its leak search then reads a wrong address and dies. Without the interceptor it does not look there.
  export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}intercept_tls_get_addr=0
  # Without the longest of cases that differ in size alone: unoptimized they take minutes.
  run_tests "unit, session and engine tests, address and undefined sanitizers" "$root/build/sanitize" \
    -R '^(unit/|model/(opencl_pocl|vulkan_lavapipe)/(session|engine)$)' \
    -E '(\.LongRunsOnASmallStack(/(gpt2|qwen2|spm.+))?|RandomOperations/page(1|16)|ThePrintedExpressionIsTheHostsAddress)$' || status=1
  # Many clients of one model on the null device: what is watched is the host alone.
  build_tessera "$root/build/threads" engine_test "${sanitized[@]}" -D TESSERA_SANITIZE=thread
  run_tests "threads, under ThreadSanitizer" "$root/build/threads" -R '^model/EngineThreads' || status=1
  export TESSERA_FULL=1  # tests that know a covering slice and a whole run the whole
fi

# -O1: most of the quick tier's time is compiling, and -O3 takes half as long again.
build_tessera "$root/build/tests" all "${options[@]}" -D CMAKE_BUILD_TYPE=Release -D CMAKE_CXX_FLAGS_RELEASE="-O1"
tier_filter=(-LE '^full$')
if [ "$tier" = full ]; then tier_filter=(); fi
run_tests "$tier tier" "$root/build/tests" "${tier_filter[@]}" "$@" || status=1
exit "$status"
