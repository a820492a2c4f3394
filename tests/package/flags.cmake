# Installs, and builds apps that have their own ideas about flags against it, with this build's compiler and with clang++.
include(${CMAKE_CURRENT_LIST_DIR}/common.cmake)

run("install" ${CMAKE_COMMAND} --install ${BUILD_DIR} --config ${CONFIG} --prefix ${WORK_DIR}/prefix)
find_program(clangxx NAMES clang++ clang++-14 REQUIRED)
string(TOUPPER "${CONFIG}" config)  # -O1: -O3 takes twice as long and warns of no more
foreach(compiler ${CXX} ${clangxx})
  get_filename_component(name ${compiler} NAME)
  set(CXX ${compiler})
  build(${CMAKE_CURRENT_LIST_DIR}/flags ${WORK_DIR}/${name} -D CMAKE_PREFIX_PATH=${WORK_DIR}/prefix -D TESSERA_SOURCE=${SOURCE_DIR}
    -D CMAKE_CXX_FLAGS_${config}=-O1)
  run("run two units" ${WORK_DIR}/${name}/two_units)
  run_hello(${WORK_DIR}/${name})
  # An error travels as a value where nothing can be thrown.
  execute_process(COMMAND ${WORK_DIR}/${name}/hello /nonexistent/model.gguf RESULT_VARIABLE result ERROR_VARIABLE said)
  if(NOT result EQUAL 1 OR NOT said MATCHES "^error: ")
    message(FATAL_ERROR "hello without exceptions ended with ${result}: ${said}")
  endif()
endforeach()
