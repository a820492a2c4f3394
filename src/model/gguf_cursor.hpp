// A reading position in an untrusted file: every read says what it was after when the bytes run out.
#pragma once
#include <cstring>
#include <span>
#include <string_view>

#include "tessera/base/status.hpp"
#include "tessera/base/text.hpp"

namespace tessera {

inline constexpr std::string_view kFetchAgain = "; the file is damaged or its download is incomplete, fetch it again";

class GgufCursor {
 public:
  explicit GgufCursor(std::span<const std::byte> file) : file_(file) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return file_.size() - position_; }
  // The bytes between an earlier position and this one.
  std::span<const std::byte> since(uint64_t start) const { return file_.subspan(start, position_ - start); }

  Result<std::span<const std::byte>> take(uint64_t count, std::string_view what) {
    if (count > remaining()) {
      return fail(ErrorCode::kMalformed, cat(what, " at byte ", position_, " needs ", count, " bytes, but the file has ", file_.size(), " bytes, ",
                                             remaining(), " of them left", kFetchAgain));
    }
    const auto bytes = file_.subspan(position_, count);
    position_ += count;
    return bytes;
  }

  template <class T>
  Result<T> number(std::string_view what) {
    TESSERA_ASSIGN(const auto bytes, take(sizeof(T), what));
    T value{};
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }

  // A 64-bit length and that many bytes.
  Result<std::string_view> string(std::string_view what) {
    TESSERA_ASSIGN(const uint64_t length, number<uint64_t>(what));
    TESSERA_ASSIGN(const auto bytes, take(length, what));
    return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

 private:
  std::span<const std::byte> file_;
  size_t position_ = 0;
};

}  // namespace tessera
