#!/usr/bin/env bash
# From a clean clone on Debian 12 (root, or sudo) to a small language model that answers.
set -euo pipefail

usage() {
  cat <<'TEXT'
bash examples/quickstart.sh [MODEL.gguf] [arguments of tessera-chat]

Installs the Debian packages that tessera and two drivers for the CPU need, PoCL (OpenCL) and lavapipe (Vulkan), builds it (Release, in
build/release), gets the model SmolLM2-135M-Instruct (98 MB, kept in ~/.cache/tessera/models), and starts tessera-chat. Done once, the next
run starts at once.

  MODEL.gguf, --model FILE   another GGUF file instead
  -p "a question"            ask one question; every other argument goes to tessera-chat as well
  -f FILE                    ask what FILE holds; with - it is read from standard input
  --device vulkan            on the first Vulkan device, here lavapipe; without it on a GPU if there is one, else on PoCL

Without a question it opens a chat on a terminal, and asks "What is the capital of France?" where there is none.
TEXT
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=examples/setup.sh
source "$root/examples/setup.sh"

# --- arguments: the model, and what goes on to the chat program ---------------------------------------------------------------------

model=""
prompted=no
chat_arguments=()
if [ $# -gt 0 ] && [[ $1 != -* ]]; then model=$1; shift; fi
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --model) [ $# -gt 1 ] || { say "error: --model needs the path of a GGUF file"; exit 2; }; model=$2; shift ;;
    --model=*) model=${1#--model=} ;;
    *)
      case $1 in -p | -p?* | --prompt | --prompt=* | -f | -f?* | --file | --file=*) prompted=yes ;; esac
      chat_arguments+=("$1")
      ;;
  esac
  shift
done
if [ -n "$model" ] && [ ! -f "$model" ]; then say "error: there is no file $model"; exit 2; fi

# --- packages, program, model ---------------------------------------------------------------------------------------------------------

install_packages g++ cmake ninja-build libexpected-dev nlohmann-json3-dev libutf8proc-dev libxxhash-dev libcli11-dev libedit-dev \
  opencl-headers ocl-icd-libopencl1 pocl-opencl-icd libvulkan-dev libvulkan1 mesa-vulkan-drivers libshaderc-dev glslang-dev spirv-tools
build_tessera "$root/build/release" tessera-chat -D CMAKE_BUILD_TYPE=Release \
  -D TESSERA_BUILD_TESTS=OFF -D TESSERA_BUILD_BENCH=OFF -D TESSERA_BUILD_EXAMPLES=ON
if [ -z "$model" ]; then model=$(fetch_model); fi

# --- chat -----------------------------------------------------------------------------------------------------------------------------

if [ "$prompted" = no ] && [ ! -t 0 ]; then
  say "question: What is the capital of France?"
  chat_arguments+=(-p "What is the capital of France?")
fi
exec "$root/build/release/bin/tessera-chat" "$model" "${chat_arguments[@]}"
