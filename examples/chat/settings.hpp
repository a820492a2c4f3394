// How answers are made, as a table: the command line, /set and saved conversations all read and write the same rows.
#pragma once
#include <span>
#include <string>
#include <string_view>

#include "tessera/engine/session.hpp"

namespace chat {

struct Setting {
  std::string_view key;    // of /set and of saved conversations
  std::string_view flags;  // on the command line
  std::string_view help;
  std::string (*text)(const tessera::GenerateOptions&);
  bool (*parse)(tessera::GenerateOptions&, std::string_view);   // false: no value of this kind
};

std::span<const Setting> settings();

// Sets one, all of it or nothing. kInvalidArgument: not a value, or out of range; kNotFound: no such key, with the nearest one.
tessera::Status set(tessera::GenerateOptions& options, std::string_view key, std::string_view value);

}  // namespace chat
