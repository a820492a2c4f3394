# Shared by the consumer tests. In: SOURCE_DIR, BUILD_DIR, WORK_DIR, VERSION, CONFIG, GENERATOR, CXX, LAUNCHER, SANITIZE.
cmake_minimum_required(VERSION 3.24)
file(REMOVE_RECURSE ${WORK_DIR})
file(MAKE_DIRECTORY ${WORK_DIR})

# run(WHAT COMMAND…): stops the test with everything that was printed when the command fails.
function(run what)
  message(STATUS "${what}")
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "${what} failed (${result})\n${command}\n${output}")
  endif()
  set(run_output "${output}" PARENT_SCOPE)
endfunction()

# configure(SOURCE BINARY CACHE_ENTRIES…) with this build's compiler. A sanitized library needs consumers that are sanitized too. -O0: what is tested
# is how the parts find each other.
function(configure source binary)
  set(flags "")
  if(SANITIZE)
    set(flags "-fsanitize=${SANITIZE}")
  endif()
  string(TOUPPER "${CONFIG}" config)
  run("configure ${source}" ${CMAKE_COMMAND} -S ${source} -B ${binary} -G ${GENERATOR} -D CMAKE_BUILD_TYPE=${CONFIG} -D CMAKE_CXX_FLAGS_${config}=-O0
    -D CMAKE_CXX_COMPILER=${CXX} -D CMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER} -D CMAKE_CXX_FLAGS=${flags} ${ARGN})
endfunction()

# The same, and builds it.
function(build source binary)
  configure(${source} ${binary} ${ARGN})
  run("build ${source}" ${CMAKE_COMMAND} --build ${binary} --config ${CONFIG})
endfunction()

# The consumer's own program says which tessera it got.
function(run_hello binary)
  find_program(hello hello PATHS ${binary} ${binary}/${CONFIG} NO_DEFAULT_PATH NO_CACHE REQUIRED)
  run("run ${hello}" ${hello})
  if(NOT run_output MATCHES "tessera ${VERSION}")
    message(FATAL_ERROR "hello did not name tessera ${VERSION}:\n${run_output}")
  endif()
endfunction()
