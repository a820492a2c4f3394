// Model files by name: $TESSERA_MODELS, ~/.cache/tessera/models, the present folder.
#pragma once
#include <string>
#include <vector>

#include "tessera/base/status.hpp"

namespace chat {

// The path of `name`: a path that exists, or a file of the folders above by its name with or without ".gguf", whatever its case, or by the
// beginning of it that no other shares. kNotFound lists the nearest names; kInvalidArgument the names that share the beginning.
tessera::Result<std::string> find_model(const std::string& name);

// The table that --list prints: name, architecture, parameters, type of most weights, size, whether it fits the device, or why it cannot be
// used. kNotFound: no such device; an empty list says where was looked.
tessera::Result<std::string> model_table(const std::string& device, int32_t context_tokens);

}  // namespace chat
