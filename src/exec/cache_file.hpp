// One file of the program cache: a header that says what it must be, then the binary.
#pragma once
#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tessera/base/status.hpp"

namespace tessera::cache_file {

inline constexpr uint32_t kFormatVersion = 1;

// The hash of a sequence of texts, as 32 hex digits; lengths are hashed too, so that moving a border between two texts changes it.
std::string hash_of(std::span<const std::string_view> texts);

// The binary in `path`; empty when there is no such file. An error says in what way the file is not one that write() made for `key`.
Result<std::optional<std::vector<std::byte>>> read(const std::string& path, const std::string& key);

// Makes FOLDER, with its parents, for its owner only.
Status make_folder(const std::string& folder);

// Writes aside, syncs and renames to `path`: other processes see the old file or the whole new one, of these parts one behind the other.
Status replace(const std::string& path, const std::vector<std::span<const std::byte>>& parts);

// The same with a header that read() knows it by.
Status write(const std::string& path, const std::string& key, std::span<const std::byte> binary);

}  // namespace tessera::cache_file
