#!/usr/bin/env bash
# bash bench/mobile/run.sh [OPTIONS]: what real compilers of mobile GPUs make of our kernels, beside llama.cpp's Vulkan shaders for the same products.
#
# Builds Mesa's Vulkan drivers for Adreno and Mali once (from Debian's source package, about 5 minutes on 2 cores; kept in ~/.cache/tessera/mobile), gives them every
# program that the plans of three models choose for A630, A650, A660, A730, A740, A750, G52 and G610, and prints a table in Markdown, and whether the targets are met.
# Figures of compilers: instructions, registers, spills, not time. Phones mostly ship their vendors' compilers, which are others.
#   --all          the table for q4_1 and q4_k too
#   --list TEXT    the figures of programs whose line has TEXT in it, such as "a740 | llama-1b"; '' for all
#   --ir TEXT      their machine code
#   --check        compares with bench/mobile/budgets.txt: 0, 1 when something became worse, 77 when the compilers cannot be had or are of another version
#   --update       rewrites bench/mobile/budgets.txt
#   --programs DIR mobile_kernels and mobile_compile are there: nothing is built but the drivers
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
# shellcheck source=examples/setup.sh
source "$root/examples/setup.sh"
# shellcheck source=bench/mobile/drivers.sh
source "$root/bench/mobile/drivers.sh"
# shellcheck source=bench/common/llama.sh
source "$root/bench/common/llama.sh"

programs="" check="" table=yes report=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    --all) report+=("$1") ;;
    --check) report+=("$1"); check=yes; table="" ;;
    --update) report+=("$1"); table="" ;;
    --list | --ir) report+=("$1" "${2?$1 needs a text}"); table=""; shift ;;
    --programs) programs=${2?--programs needs a folder}; shift ;;
    *) say "error: unknown option $1; there is --help"; exit 2 ;;
  esac
  shift
done

if ! drivers=$(fetch_mobile_drivers); then
  say "skipped: no compilers of mobile GPUs here"
  exit $((${#check} > 0 ? 77 : 1))
fi
cache=$(cache_folder mobile "the mobile drivers")
if [ -z "$programs" ]; then
  install_packages g++ cmake ninja-build ccache libexpected-dev nlohmann-json3-dev libutf8proc-dev libxxhash-dev libcli11-dev \
    opencl-headers libvulkan-dev libshaderc-dev glslang-dev spirv-tools glslc python3
  for target in mobile_kernels mobile_compile; do
    build_tessera "$root/build/mobile" "$target" -D CMAKE_BUILD_TYPE=Release -D CMAKE_CXX_FLAGS_RELEASE=-O1 -D TESSERA_BUILD_TESTS=OFF -D TESSERA_BUILD_BENCH=ON -D TESSERA_BUILD_EXAMPLES=OFF
  done
  programs=$root/build/mobile/bin
fi
if [ -n "$table" ]; then
  install_packages glslc
  llama=$(fetch_llama)
  report+=(--llama "$llama/vendor/llama.cpp/ggml/src/ggml-vulkan/vulkan-shaders")
fi

# Mesa 25.0 reports no packed dots for G610 and makes plain arithmetic of them; the profile, Mesa 26.2's, has them.
devices=$root/tests/data/devices
kernels=$(mktemp -d "${TMPDIR:-/tmp}/tessera-mobile.XXXXXX")
trap 'rm -rf "$kernels"' EXIT
trap 'exit 130' INT TERM
step "our kernels as SPIR-V" "the plan or the kernel that fails is named above" "$programs/mobile_kernels" "$kernels" \
  "$devices"/adreno-{630,650,660,730,740,750}.vulkan.json "$devices/mali-g52.vulkan.json" "no-dots:$devices/mali-g610.vulkan.json"
if [ -d "$cache/results" ]; then find "$cache/results" -type f -mtime +30 -delete; fi   # what compilers said of kernels as they were
say "compiling them for 8 GPUs …"
status=0
/usr/bin/python3 -B "$root/bench/mobile/report.py" --drivers "$drivers" --compile "$programs/mobile_compile" --kernels "$kernels" --cache "$cache/results" "${report[@]}" || status=$?
exit "$status"
