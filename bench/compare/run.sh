#!/usr/bin/env bash
# bash bench/compare/run.sh [-r ROUNDS] [-p PROMPT] [-n ANSWER] [-o FOLDER] [MODEL]: this library beside its peers on the software devices of this machine.
#
# Builds tessera-bench, and llama.cpp twice (for this CPU; for Vulkan) from the source package that llama-cpp-python has on PyPI, and fetches tinygrad; the first
# time takes half an hour or more, and what is built stays in ~/.cache/tessera/compare. Then all are run by turns, ROUNDS times (5): the same model, the same lengths (512 and
# 128), on two threads. Prints a table of ratios with their spread; the data and the plot are kept in FOLDER (build/compare).
#   -r 0                        builds and fetches all of it, and runs nothing
#   WITHOUT="tinygrad vulkan"   leaves peers out (tinygrad, vulkan, intel)
#
# llama.cpp's OpenCL backend is not a peer here: it refuses PoCL, runs on the CPU in silence, and calls that OpenCL.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
# shellcheck source=examples/setup.sh
source "$root/examples/setup.sh"

kLlamaPackage="llama-cpp-python==0.3.36"
kTinygradPackage="tinygrad==0.13.0"   # of 0.14.0's package a folder that it imports is missing

rounds=5 prompt=512 answer=128 out=$root/build/compare
while getopts "r:p:n:o:h" option; do
  case $option in
    r) rounds=$OPTARG ;;
    p) prompt=$OPTARG ;;
    n) answer=$OPTARG ;;
    o) out=$OPTARG ;;
    h) sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
without() { [[ " ${WITHOUT:-} " == *" $1 "* ]]; }

install_packages g++ cmake ninja-build ccache libexpected-dev nlohmann-json3-dev libutf8proc-dev libxxhash-dev libcli11-dev \
  opencl-headers ocl-icd-libopencl1 pocl-opencl-icd libvulkan-dev libvulkan1 mesa-vulkan-drivers libshaderc-dev glslang-dev spirv-tools \
  glslc spirv-headers python3 python3-venv python3-matplotlib git
find_pip
model=${1:-$(fetch_model)}
folder=$(cache_folder compare "the peers")
mkdir -p "$folder" "$out"
jobs=$(nproc)

# --- this library ---------------------------------------------------------------------------------------------------------------------
build_tessera "$root/build/release" tessera-bench -D CMAKE_BUILD_TYPE=Release -D TESSERA_BUILD_TESTS=OFF -D TESSERA_BUILD_EXAMPLES=OFF
ours=$root/build/release/bin/tessera-bench

# --- llama.cpp ------------------------------------------------------------------------------------------------------------------------
# The validation layer's settings need newer Vulkan headers than Debian's, and nothing that is measured: that block is left out.
unpack_llama() {
  local temporary
  temporary=$(temporary_beside "$folder")
  "${python:?}" -m pip download --disable-pip-version-check --no-deps --no-binary llama-cpp-python --dest "$temporary" "$kLlamaPackage" || return 1
  tar -xzf "$temporary"/llama_cpp_python-*.tar.gz -C "$temporary" || return 1
  sed -i -e '/std::vector<vk::LayerSettingEXT> settings = {/,/vk::LayerSettingsCreateInfoEXT layer_setting_info(settings);/d' -e 's/, &layer_setting_info);/);/' \
    -e 's/const bool layer_settings = ggml_vk_instance_layer_settings_available();/const bool layer_settings = false;/' "$temporary"/llama_cpp_python-*/vendor/llama.cpp/ggml/src/ggml-vulkan/ggml-vulkan.cpp || return 1
  mv "$temporary"/llama_cpp_python-*/ "$llama" && rm -rf "$temporary"
}
# build_llama NAME CMAKE_OPTIONS…
build_llama() {
  local build=$folder/llama-$1
  shift
  cmake -S "$llama/vendor/llama.cpp" -B "$build" -G Ninja -D CMAKE_BUILD_TYPE=Release -D GGML_NATIVE=ON -D GGML_CCACHE=OFF -D BUILD_SHARED_LIBS=OFF -D LLAMA_CURL=OFF -D LLAMA_OPENSSL=OFF \
    -D LLAMA_BUILD_TESTS=OFF -D LLAMA_BUILD_EXAMPLES=OFF -D LLAMA_BUILD_SERVER=OFF -D LLAMA_BUILD_APP=OFF "$@" && nice -n 15 cmake --build "$build" -j "$jobs" --target llama-bench
}
llama=$folder/${kLlamaPackage//-/_}
llama=${llama/==/-}
network="see to the network and run this again"
if [ ! -d "$llama" ]; then step "llama.cpp: fetching its source, 77 MB" "$network" unpack_llama; fi
if [ ! -x "$folder/llama-cpu/bin/llama-bench" ]; then step "llama.cpp for this CPU: building, about 10 minutes" "the compiler's errors are above" build_llama cpu; fi
if ! without vulkan && [ ! -x "$folder/llama-vulkan/bin/llama-bench" ]; then
  step "llama.cpp for Vulkan: building, about 20 minutes" "the compiler's errors are above; WITHOUT=vulkan leaves it out" build_llama vulkan -D GGML_VULKAN=ON
fi

# --- tinygrad -------------------------------------------------------------------------------------------------------------------------
make_tinygrad() { "$python" -m venv "$folder/tinygrad" && "$folder/tinygrad/bin/pip" install --disable-pip-version-check "$kTinygradPackage"; }
if ! without tinygrad && ! "$folder/tinygrad/bin/python" -c "import importlib.metadata as m; assert 'tinygrad==' + m.version('tinygrad') == '$kTinygradPackage'" 2>/dev/null; then
  step "tinygrad: fetching" "$network; WITHOUT=tinygrad leaves it out" make_tinygrad
fi

# --- by turns -------------------------------------------------------------------------------------------------------------------------
export VK_ICD_FILENAMES=${VK_ICD_FILENAMES:-/usr/share/vulkan/icd.d/lvp_icd.x86_64.json}
vendors=""
if ! without intel; then vendors=$(fetch_intel_opencl) || warn "no OpenCL driver of Intel's: left out"; fi

# Each prints JSON lines with llama-bench's keys, of one round: the best that a program does in several repetitions is not what is compared.
run_ours_pocl() { "$ours" -m "$model" -p "$prompt" -n "$answer" -r 1 --starts "$1" --device opencl:0 -q -o jsonl; }
run_ours_intel() { OCL_ICD_VENDORS=$vendors run_ours_pocl "$1"; }
run_ours_lavapipe() { "$ours" -m "$model" -p "$prompt" -n "$answer" -r 1 --starts "$1" --device vulkan:0 -q -o jsonl; }
run_llama_cpu() { "$folder/llama-cpu/bin/llama-bench" -m "$model" -p "$prompt" -n "$answer" -r 1 -t 2 -ngl 0 -o jsonl; }
run_llama_vulkan() { GGML_VK_VISIBLE_DEVICES=0 "$folder/llama-vulkan/bin/llama-bench" -m "$model" -p "$prompt" -n "$answer" -r 1 -t 2 -ngl 99 -o jsonl; }
# REALIZE: the weights dequantized once, not in every token, which is many times as fast.
run_tinygrad_pocl() { DEV=CL HALF=0 REALIZE=1 "$folder/tinygrad/bin/python" "$root/bench/compare/tinygrad_bench.py" "$model" "$prompt" "$answer" 1; }

programs=(llama_cpu ours_pocl)
if [ -n "$vendors" ]; then programs+=(ours_intel); fi
programs+=(ours_lavapipe)
if ! without vulkan; then programs+=(llama_vulkan); fi
if ! without tinygrad; then programs+=(tinygrad_pocl); fi

if [ "$rounds" -eq 0 ]; then say "built; nothing was run"; exit 0; fi
read -r load _ </proc/loadavg
if awk "BEGIN { exit !($load > 0.5) }"; then warn "this machine is at work (load $load): what is compared suffers unevenly from that"; fi

data=$out/runs.jsonl
: >"$data"
for ((round = 1; round <= rounds; ++round)); do
  for program in "${programs[@]}"; do
    say "round $round of $rounds: $program"
    starts=0
    if [ "$round" -eq 1 ]; then starts=1; fi
    if ! "run_$program" "$starts" >"$out/one.jsonl" 2>"$out/one.log"; then
      tail -n 20 "$out/one.log" | sed 's/^/  | /' >&2
      die "$program failed; its output is in $out/one.log"
    fi
    sed "s/^{/{\"program\": \"$program\", \"round\": $round, /" "$out/one.jsonl" >>"$data"
  done
done
rm -f "$out/one.jsonl" "$out/one.log"
/usr/bin/python3 "$root/bench/compare/report.py" "$data" "$out"
