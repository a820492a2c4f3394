// The alphabet of byte-level BPE tables: every byte has a printable character, so that tables can be kept as text (GPT-2's encoder).
#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace tessera {

// Bytes that a table entry spells; nullopt when one of its characters stands for no byte.
std::optional<std::string> bytes_of_table_text(std::string_view text);

}  // namespace tessera
