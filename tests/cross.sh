#!/usr/bin/env bash
# bash tests/cross.sh FOLDER: builds the library, the programs and unit tests of what may differ by machine for 64-bit Arm in FOLDER, and runs them
# on QEMU. Ends with 77, and says why, where the compiler, QEMU or Debian's packages for arm64 cannot be had.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
folder=${1:?the folder to build in}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd -P)
sysroot=$folder/sysroot

skip() { echo "skipped: $*"; exit 77; }

for tool in aarch64-linux-gnu-g++ qemu-aarch64-static apt-get dpkg-deb; do
  command -v "$tool" >/dev/null || skip "$tool is not installed (apt-get install g++-aarch64-linux-gnu qemu-user-static)"
done

# make_sysroot: Debian's arm64 packages unpacked in $sysroot, with package lists of its own: the system's architectures stay as they are.
make_sysroot() {
  local state=$folder/apt packages
  packages=(libexpected-dev nlohmann-json3-dev libutf8proc-dev libutf8proc2 libxxhash-dev libcli11-dev opencl-c-headers
    libshaderc-dev glslang-dev spirv-tools libvulkan-dev libedit-dev libedit2 libbsd0 libmd0 libtinfo6 libeigen3-dev googletest)
  local apt=(apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root -o Acquire::Languages=none
    -o "Dir::State::Lists=$state/lists" -o Dir::State::status=/dev/null -o "Dir::Cache=$state/cache")
  rm -rf "$state" "$sysroot"
  mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/packages" "$sysroot"
  "${apt[@]}" update || echo "apt-get update failed in part; trying with the lists there are"
  (cd "$state/packages" && "${apt[@]}" download "${packages[@]}") || return 1
  for package in "$state"/packages/*.deb; do dpkg-deb -x "$package" "$sysroot" || return 1; done
  rm -rf "$state"
}

# configure SOURCE BUILD OPTIONS…
configure() {
  local source=$1 build=$2
  shift 2
  cmake -S "$source" -B "$build" -G Ninja -D CMAKE_TOOLCHAIN_FILE="$root/cmake/toolchains/aarch64-linux-gnu.cmake" -D TESSERA_SYSROOT="$sysroot" \
    -D CMAKE_BUILD_TYPE=Release -D CMAKE_CXX_FLAGS_RELEASE=-O1 "$@"
}

run() {
  timeout 300 qemu-aarch64-static -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH="$sysroot/usr/lib/aarch64-linux-gnu:$sysroot/lib/aarch64-linux-gnu" "$@"
}

if [ ! -f "$sysroot/complete" ]; then
  make_sysroot || skip "Debian's arm64 packages could not be fetched"
  configure "$sysroot/usr/src/googletest" "$folder/googletest" -D BUILD_GMOCK=OFF -D CMAKE_INSTALL_PREFIX="$sysroot/usr"
  cmake --build "$folder/googletest" --target install
  touch "$sysroot/complete"
fi

launcher=()
if command -v ccache >/dev/null; then launcher=(-D CMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
configure "$root" "$folder/build" "${launcher[@]}" -D TESSERA_WERROR=ON -D TESSERA_BUILD_TESTS=ON -D TESSERA_BUILD_BENCH=ON -D TESSERA_BUILD_EXAMPLES=ON

# The unit tests of what may differ by machine: how bytes, numbers and text are read, packed and rounded, how files are mapped, how drivers are not found.
tests=()
for name in device_info gguf half layout model_file model_file_damage model_file_io null_device philox pre_tokenizer program_cache quant rope_scaling sampler \
  sampler_chain sentence_piece text_stream tokenizer tuned_rows utf8 weight_layout; do
  tests+=("${name}_test")
done
cmake --build "$folder/build" --target tessera-chat tessera-eval tessera-bench "${tests[@]}"

cmake --install "$folder/build" --prefix "$folder/prefix"
configure "$root/examples/hello" "$folder/hello" "${launcher[@]}" -D tessera_DIR="$folder/prefix/lib/cmake/tessera"
cmake --build "$folder/hello"

failed=()
for name in "${tests[@]}"; do
  echo "--- $name"
  run "$folder/build/tests/$name" --gtest_brief=1 || failed+=("$name")
done
echo "--- programs"
# Into a file each: a program that is still writing when its reader leaves ends by SIGPIPE, now and then.
run "$folder/hello/hello" >"$folder/hello.txt" && grep -q '^tessera ' "$folder/hello.txt" || failed+=(hello)
run "$folder/build/bin/tessera-chat" --version || failed+=(tessera-chat)
run "$folder/build/bin/tessera-bench" --version || failed+=(tessera-bench)
run "$folder/build/bin/tessera-eval" plan --profile "$root/tests/data/devices/mali-g610.vulkan.json" --chunk 1 \
  --model "$root/tests/model/conform/models/llama-tied-gqa3.Q4_1.gguf" >"$folder/plan.txt" || failed+=(tessera-eval)
head -n 20 "$folder/plan.txt"
if [ ${#failed[@]} -gt 0 ]; then
  echo "error: failed on aarch64: ${failed[*]}"
  exit 1
fi
echo "${#tests[@]} test programs and 4 programs passed on aarch64"
