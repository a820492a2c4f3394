#include "byte_text.hpp"

#include <array>

#include "tessera/base/utf8.hpp"

namespace tessera {
namespace {

// Graphic characters of Latin-1 (but not the soft hyphen) stand for themselves; the other 68 bytes take U+0100, U+0101, … in order.
constexpr bool stands_for_itself(unsigned byte) { return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD); }

constexpr size_t kCodes = 256 + 68;

constexpr std::array<int, kCodes> byte_of_code() {
  std::array<int, kCodes> bytes = {};
  bytes.fill(-1);
  size_t next = 256;
  for (unsigned byte = 0; byte < 256; ++byte) bytes[stands_for_itself(byte) ? byte : next++] = static_cast<int>(byte);
  return bytes;
}

constexpr std::array<int, kCodes> kByteOfCode = byte_of_code();

}  // namespace

std::optional<std::string> bytes_of_table_text(std::string_view text) {
  std::string bytes;
  while (!text.empty()) {
    const Utf8Char c = first_utf8(text);
    if (c.code >= kCodes || kByteOfCode[c.code] < 0) return std::nullopt;
    bytes += static_cast<char>(kByteOfCode[c.code]);
    text.remove_prefix(c.bytes);
  }
  return bytes;
}

}  // namespace tessera
