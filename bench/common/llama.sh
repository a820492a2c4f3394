# shellcheck shell=bash
# fetch_llama: llama.cpp's source, which bench/compare builds and bench/mobile compiles shaders of. Source it behind examples/setup.sh.

kLlamaPackage="llama-cpp-python==0.3.36"

# unpack_llama FOLDER NAME: FOLDER/NAME, from the source package that llama-cpp-python has on PyPI.
# The validation layer's settings need newer Vulkan headers than Debian's, and nothing that is measured: that block is left out.
unpack_llama() {
  local folder=$1 name=$2 temporary
  temporary=$(temporary_beside "$folder")
  "${python:?}" -m pip download --disable-pip-version-check --no-deps --no-binary llama-cpp-python --dest "$temporary" "$kLlamaPackage" || return 1
  tar -xzf "$temporary"/llama_cpp_python-*.tar.gz -C "$temporary" || return 1
  sed -i -e '/std::vector<vk::LayerSettingEXT> settings = {/,/vk::LayerSettingsCreateInfoEXT layer_setting_info(settings);/d' -e 's/, &layer_setting_info);/);/' \
    -e 's/const bool layer_settings = ggml_vk_instance_layer_settings_available();/const bool layer_settings = false;/' "$temporary"/llama_cpp_python-*/vendor/llama.cpp/ggml/src/ggml-vulkan/ggml-vulkan.cpp || return 1
  mv "$temporary"/llama_cpp_python-*/ "$folder/$name" && rm -rf "$temporary"
}

# fetch_llama: the folder on stdout, fetched if it is not in the cache folder yet. Returns 1 when it cannot be had.
fetch_llama() (
  folder=$(cache_folder compare "llama.cpp") || exit 1
  name=${kLlamaPackage//-/_}
  name=${name/==/-}
  if [ ! -d "$folder/$name" ]; then
    find_pip || exit 1
    mkdir -p "$folder" || exit 1
    step "llama.cpp: fetching its source, 77 MB" "see to the network and run this again" unpack_llama "$folder" "$name" || exit 1
  fi
  echo "$folder/$name"
)
