# Builds examples/hello's program in a project that has tessera's source as a part: HOW is add_subdirectory or fetch_content.
include(${CMAKE_CURRENT_LIST_DIR}/common.cmake)

build(${CMAKE_CURRENT_LIST_DIR}/${HOW} ${WORK_DIR}/build -D TESSERA_SOURCE=${SOURCE_DIR})
run_hello(${WORK_DIR}/build)
