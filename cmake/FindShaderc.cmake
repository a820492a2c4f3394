# shaderc has no CMake package. Gives Shaderc::Shaderc; installed with tessera, whose static form must be linked to it.
# Debian 12: libshaderc.so.1 lacks the libraries it is made of and cannot be loaded, and libshaderc_combined.a lacks them too, so that glslang's and
# SPIRV-Tools' archives are named behind it. Elsewhere the combined archive is whole, and they are not needed; the NDK and SDKs may have the shared one.
find_path(Shaderc_INCLUDE_DIR shaderc/shaderc.h)
find_library(Shaderc_LIBRARY NAMES shaderc_combined shaderc_shared)
set(Shaderc_PARTS "")
foreach(part glslang MachineIndependent GenericCodeGen OGLCompiler OSDependent HLSL SPIRV SPIRV-Tools-opt SPIRV-Tools)
  find_library(Shaderc_${part}_LIBRARY NAMES ${part})
  mark_as_advanced(Shaderc_${part}_LIBRARY)
  if(Shaderc_${part}_LIBRARY AND Shaderc_LIBRARY MATCHES "combined")
    list(APPEND Shaderc_PARTS ${Shaderc_${part}_LIBRARY})
  endif()
endforeach()
mark_as_advanced(Shaderc_INCLUDE_DIR Shaderc_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Shaderc REQUIRED_VARS Shaderc_LIBRARY Shaderc_INCLUDE_DIR)

if(Shaderc_FOUND AND NOT TARGET Shaderc::Shaderc)
  # GLOBAL: a project that adds tessera as a subfolder links this library too.
  add_library(Shaderc::Shaderc UNKNOWN IMPORTED GLOBAL)
  set_target_properties(Shaderc::Shaderc PROPERTIES
    IMPORTED_LOCATION "${Shaderc_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${Shaderc_INCLUDE_DIR}"
    INTERFACE_LINK_LIBRARIES "${Shaderc_PARTS}")
endif()
