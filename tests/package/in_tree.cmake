# Builds examples/hello's program in a project that has tessera's source as a part: HOW is add_subdirectory or fetch_content. FetchContent ends in an
# add_subdirectory of its own: that it finds the source and the target is all that there is to see, so nothing is built a second time.
include(${CMAKE_CURRENT_LIST_DIR}/common.cmake)

if(HOW STREQUAL fetch_content)
  configure(${CMAKE_CURRENT_LIST_DIR}/${HOW} ${WORK_DIR}/build -D TESSERA_SOURCE=${SOURCE_DIR})
else()
  build(${CMAKE_CURRENT_LIST_DIR}/${HOW} ${WORK_DIR}/build -D TESSERA_SOURCE=${SOURCE_DIR})
  run_hello(${WORK_DIR}/build)
endif()
