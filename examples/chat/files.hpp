// Files that a person names: read whole, with bounds; written whole or not at all.
#pragma once
#include <string>
#include <string_view>

#include "tessera/base/status.hpp"

namespace chat {

// "~/x" → "/home/me/x".
std::string expand_home(std::string_view path);

// At most 64 MiB, also from a pipe. kNotFound, kIo, kLimit, kInvalidArgument (a folder).
tessera::Result<std::string> read_text_file(const std::string& path);

// By a temporary file beside it and a rename: whatever happens, `path` holds all of the old or all of the new text. Readable by its owner
// only. kInvalidArgument: it exists and `replace` is false; kIo.
tessera::Status write_text_file(const std::string& path, std::string_view text, bool replace);

}  // namespace chat
