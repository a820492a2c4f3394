# Installs, moves the prefix elsewhere, and builds examples/hello against it. With SHARED: from a fresh shared build of the library.
include(${CMAKE_CURRENT_LIST_DIR}/common.cmake)

if(SHARED)
  build(${SOURCE_DIR} ${WORK_DIR}/library -D BUILD_SHARED_LIBS=ON
    -D TESSERA_BUILD_TESTS=OFF -D TESSERA_BUILD_BENCH=OFF -D TESSERA_BUILD_EXAMPLES=OFF)
  set(BUILD_DIR ${WORK_DIR}/library)
endif()
run("install" ${CMAKE_COMMAND} --install ${BUILD_DIR} --config ${CONFIG} --prefix ${WORK_DIR}/first)
file(RENAME ${WORK_DIR}/first ${WORK_DIR}/moved)

# Nothing that CMake reads there may name the folders it was made in.
file(GLOB_RECURSE package_files ${WORK_DIR}/moved/*.cmake)
if(NOT package_files)
  message(FATAL_ERROR "no CMake package was installed")
endif()
foreach(file IN LISTS package_files)
  file(READ ${file} text)
  foreach(folder ${WORK_DIR} ${BUILD_DIR} ${SOURCE_DIR})
    string(FIND "${text}" "${folder}" position)
    if(NOT position EQUAL -1)
      message(FATAL_ERROR "${file} names ${folder}, so the package cannot be moved")
    endif()
  endforeach()
endforeach()

build(${SOURCE_DIR}/examples/hello ${WORK_DIR}/hello -D CMAKE_PREFIX_PATH=${WORK_DIR}/moved)
run_hello(${WORK_DIR}/hello)
build(${CMAKE_CURRENT_LIST_DIR}/config ${WORK_DIR}/config -D CMAKE_PREFIX_PATH=${WORK_DIR}/moved -D VERSION=${VERSION})
