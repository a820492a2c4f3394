# Builds the library without Vulkan, as where there is no shaderc and there are no Vulkan headers; installs it, and builds examples/hello against it.
include(${CMAKE_CURRENT_LIST_DIR}/common.cmake)

build(${SOURCE_DIR} ${WORK_DIR}/library -D TESSERA_VULKAN=OFF -D CMAKE_DISABLE_FIND_PACKAGE_Shaderc=ON
  -D TESSERA_WERROR=${WERROR} -D TESSERA_BUILD_TESTS=OFF -D TESSERA_BUILD_BENCH=OFF -D TESSERA_BUILD_EXAMPLES=OFF)
run("install" ${CMAKE_COMMAND} --install ${WORK_DIR}/library --config ${CONFIG} --prefix ${WORK_DIR}/prefix)
build(${SOURCE_DIR}/examples/hello ${WORK_DIR}/hello -D CMAKE_PREFIX_PATH=${WORK_DIR}/prefix -D CMAKE_DISABLE_FIND_PACKAGE_Shaderc=ON)
run_hello(${WORK_DIR}/hello)

# What is left out says so.
foreach(device vulkan vulkan:0)
  execute_process(COMMAND ${CMAKE_COMMAND} -E env TESSERA_DEVICE=${device} ${WORK_DIR}/hello/hello /nonexistent/model.gguf RESULT_VARIABLE result ERROR_VARIABLE said)
  if(NOT result EQUAL 1 OR NOT said MATCHES "this build of tessera has no vulkan backend")
    message(FATAL_ERROR "hello on ${device} ended with ${result}: ${said}")
  endif()
endforeach()
