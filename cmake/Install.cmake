# install and export: find_package(tessera) then gives tessera::tessera, wherever the prefix is moved to.
include(CMakePackageConfigHelpers)

set(tessera_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/tessera)

install(TARGETS tessera EXPORT tesseraTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR}
  FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT tesseraTargets NAMESPACE tessera:: DESTINATION ${tessera_package_dir})

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/tesseraConfig.cmake.in ${PROJECT_BINARY_DIR}/tesseraConfig.cmake
  INSTALL_DESTINATION ${tessera_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/tesseraConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES
  ${PROJECT_BINARY_DIR}/tesseraConfig.cmake
  ${PROJECT_BINARY_DIR}/tesseraConfigVersion.cmake
  ${CMAKE_CURRENT_LIST_DIR}/FindUtf8proc.cmake
  ${CMAKE_CURRENT_LIST_DIR}/FindShaderc.cmake
  DESTINATION ${tessera_package_dir})

# The same for pkg-config. A static tessera (the default) needs `pkg-config --static`.
set(tessera_pc_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH TESSERA_PC_TO_PREFIX /prefix/${tessera_pc_dir} /prefix)
string(REGEX REPLACE "/$" "" TESSERA_PC_TO_PREFIX ${TESSERA_PC_TO_PREFIX})
list(TRANSFORM CMAKE_DL_LIBS PREPEND -l OUTPUT_VARIABLE TESSERA_PC_SYSTEM_LIBRARIES)
list(JOIN TESSERA_PC_SYSTEM_LIBRARIES " " TESSERA_PC_SYSTEM_LIBRARIES)
string(APPEND TESSERA_PC_SYSTEM_LIBRARIES " ${CMAKE_THREAD_LIBS_INIT}")
if(TESSERA_VULKAN)
  # By path: their folder is on the linker's way, but the archives of Debian have no pkg-config file that is whole.
  list(JOIN Shaderc_PARTS " " TESSERA_PC_SHADERC)
  string(PREPEND TESSERA_PC_SHADERC "${Shaderc_LIBRARY} ")
  string(APPEND TESSERA_PC_SHADERC " ")
endif()
configure_file(${CMAKE_CURRENT_LIST_DIR}/tessera.pc.in ${PROJECT_BINARY_DIR}/tessera.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/tessera.pc DESTINATION ${tessera_pc_dir})

install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
