# What tessera needs from the system. Each miss ends the configuration with the Debian package that has it.

# Imported targets must be seen by a parent project too: a static tessera passes its link dependencies on to it.
set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON)

macro(tessera_missing what debian_package)
  message(FATAL_ERROR "tessera: ${what} was not found. On Debian or Ubuntu: apt-get install ${debian_package}")
endmacro()

# A macro: a package config may set variables that its targets need in the caller's scope.
macro(tessera_require package debian_package)
  find_package(${package} QUIET ${ARGN})
  if(NOT ${package}_FOUND)
    tessera_missing("the CMake package ${package}" ${debian_package})
  endif()
endmacro()

# A header that comes without a CMake package; the folder lands in the cache variable `variable`.
function(tessera_require_header variable header debian_package)
  find_path(${variable} ${header})
  mark_as_advanced(${variable})
  if(NOT ${variable})
    tessera_missing("the header ${header}" ${debian_package})
  endif()
endfunction()

macro(tessera_find_library_dependencies)
  tessera_require(tl-expected libexpected-dev)
  tessera_require(nlohmann_json nlohmann-json3-dev)
  tessera_require(Threads libc6-dev)
  list(PREPEND CMAKE_MODULE_PATH ${PROJECT_SOURCE_DIR}/cmake)
  tessera_require(Utf8proc libutf8proc-dev)
  if(TESSERA_VULKAN)
    tessera_require(Shaderc "libshaderc-dev glslang-dev spirv-tools")
    tessera_require_header(TESSERA_VULKAN_INCLUDE_DIR vulkan/vulkan_core.h libvulkan-dev)
  endif()
  list(POP_FRONT CMAKE_MODULE_PATH)
  tessera_require_header(TESSERA_XXHASH_INCLUDE_DIR xxhash.h libxxhash-dev)
  # Headers only: the driver's library is opened at run time, so that one binary runs with and without it.
  tessera_require_header(TESSERA_OPENCL_INCLUDE_DIR CL/cl.h opencl-headers)
endmacro()
