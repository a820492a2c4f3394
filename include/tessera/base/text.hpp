// Small text helpers: building messages, readable byte counts, escaping untrusted text.
#pragma once
#include <cstdint>
#include <cstdio>
#include <sstream>
#include <string>
#include <string_view>

namespace tessera {

// "tensor ", 3, " of ", 7 → "tensor 3 of 7". For messages, not for hot paths.
template <class... Parts>
std::string cat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return std::move(out).str();
}

// 98362432 → "93.8 MiB".
inline std::string bytes_text(uint64_t bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= 1024.0 && unit < 6; ++unit) value /= 1024.0;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
  return text;
}

// Bytes from a file as they may be shown in a message: control and non-ASCII bytes as \xNN, at most `limit` bytes.
inline std::string escaped(std::string_view raw, size_t limit = 80) {
  std::string out;
  for (size_t i = 0; i < raw.size() && i < limit; ++i) {
    const unsigned char c = static_cast<unsigned char>(raw[i]);
    if (c >= 0x20 && c < 0x7f) {
      out += raw[i];
    } else {
      char hex[8];
      std::snprintf(hex, sizeof hex, "\\x%02x", c);
      out += hex;
    }
  }
  if (raw.size() > limit) out += "…";
  return out;
}

}  // namespace tessera
