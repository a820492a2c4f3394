# tessera_embed_kernels(NAME OUT_CPP): a source file with the text of kernels/*.kernel and kernels/lib/*.kernel of the present folder, made again when one
# of them changes. It defines NAME_kernels() and NAME_kernel_names(); for `embedded` they stand in tessera/codegen/kernel_library.hpp.
#
# The file has two lives: included, it defines that function; run as `cmake -P` with NAME, KERNEL_FOLDER and OUT_CPP, it writes the source.

function(tessera_embed_kernels name out_cpp)
  set(folder ${CMAKE_CURRENT_SOURCE_DIR}/kernels)
  file(GLOB_RECURSE kernel_files CONFIGURE_DEPENDS ${folder}/*.kernel)
  add_custom_command(OUTPUT ${out_cpp}
    COMMAND ${CMAKE_COMMAND} -DNAME=${name} -DKERNEL_FOLDER=${folder} -DOUT_CPP=${out_cpp} -P ${CMAKE_CURRENT_FUNCTION_LIST_FILE}
    DEPENDS ${kernel_files} ${CMAKE_CURRENT_FUNCTION_LIST_FILE}
    COMMENT "Embedding the kernels"
    VERBATIM)
endfunction()

# `text` as raw string literals of at most 8,000 bytes each (a compiler need not take more than 64 KiB, some take 16), cut at line ends.
function(tessera_raw_literals text result)
  set(literals "")
  while(NOT text STREQUAL "")
    string(LENGTH "${text}" length)
    if(length GREATER 8000)
      string(SUBSTRING "${text}" 0 8000 head)
      string(FIND "${head}" "\n" cut REVERSE)
      math(EXPR cut "${cut} + 1")
      if(cut EQUAL 0)
        message(FATAL_ERROR "a kernel has a line of more than 8,000 bytes")
      endif()
    else()
      set(cut ${length})
    endif()
    string(SUBSTRING "${text}" 0 ${cut} head)
    string(SUBSTRING "${text}" ${cut} -1 text)
    string(APPEND literals "\n     R\"kernel(${head})kernel\"")
  endwhile()
  set(${result} "${literals}" PARENT_SCOPE)
endfunction()

function(tessera_write_embedded_kernels)
  file(GLOB_RECURSE kernel_files RELATIVE ${KERNEL_FOLDER} ${KERNEL_FOLDER}/*.kernel)
  list(SORT kernel_files)
  set(rows "")
  foreach(kernel_file IN LISTS kernel_files)
    file(READ ${KERNEL_FOLDER}/${kernel_file} text)
    tessera_raw_literals("${text}" literals)
    string(REGEX REPLACE "\\.kernel$" "" name ${kernel_file})
    string(APPEND rows "    {\"${name}\",${literals}},\n")
  endforeach()
  file(WRITE ${OUT_CPP} "// Made by cmake/EmbedKernels.cmake from the files in kernels/.
#include \"tessera/base/text.hpp\"
#include \"tessera/codegen/kernel_library.hpp\"

namespace tessera {
namespace {

struct Row {
  std::string_view name;
  std::string_view text;
};

constexpr Row kRows[] = {
${rows}};

class EmbeddedKernels : public KernelLibrary {
 public:
  Result<std::string_view> text(std::string_view name) const override {
    std::string names;
    for (const Row& row : kRows) {
      if (row.name == name) return row.text;
      names += (names.empty() ? \"\" : \", \") + std::string(row.name);
    }
    return fail(ErrorCode::kNotFound, cat(\"there is no kernel file '\", name, \"'; there are \", names));
  }
};

}  // namespace

const KernelLibrary& ${NAME}_kernels();
const KernelLibrary& ${NAME}_kernels() {
  static const EmbeddedKernels kernels;
  return kernels;
}

std::vector<std::string> ${NAME}_kernel_names();
std::vector<std::string> ${NAME}_kernel_names() {
  std::vector<std::string> names;
  for (const Row& row : kRows)
    if (!row.name.starts_with(\"lib/\")) names.emplace_back(row.name);
  return names;
}

}  // namespace tessera
")
endfunction()

if(CMAKE_SCRIPT_MODE_FILE)
  tessera_write_embedded_kernels()
endif()
