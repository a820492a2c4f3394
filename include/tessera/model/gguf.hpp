// The GGUF container, versions 2 and 3, over bytes that nobody trusts: metadata and tensor positions, every one of them checked before
// it is handed out. Knows nothing of architectures. Source: the GGUF specification of the ggml project.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/base/status.hpp"

namespace tessera {

enum class GgufType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

// "u32", "string"…
std::string_view name_of(GgufType type);

// A tensor type as the ggml project numbers them: `block` values take `block_bytes` bytes. Lists also types that this build cannot run,
// so that a message can name them and a tensor's size can be checked.
struct GgmlType {
  uint32_t id;
  std::string_view name;
  uint32_t block;
  uint32_t block_bytes;
};

// Null when the id is unknown.
const GgmlType* find_ggml_type(uint32_t id);

// One metadata value, as it lies in the file.
struct GgufValue {
  GgufType type = GgufType::kU8;  // of an array: the type of its elements, never kArray
  bool is_array = false;
  uint64_t count = 1;                // elements of an array
  std::span<const std::byte> bytes;  // little-endian; a string's text; an array's elements, strings with their 8-byte lengths in front
};

// A tensor's data [dims[3], dims[2], dims[1], dims[0]]: dims[0] is the fastest, unused ones are 1.
struct GgufTensor {
  std::string_view name;  // printable ASCII, not empty, unique
  uint32_t n_dims = 1;
  std::array<uint64_t, 4> dims{1, 1, 1, 1};
  const GgmlType* type = nullptr;
  std::span<const std::byte> bytes;  // inside the file, starts at a multiple of the alignment, overlaps no other tensor
};

class Gguf {
 public:
  // Checks all of the file's header; `file` must outlive the result, which only views it. Costs one pass over the header: tensor data is
  // not read. Our own memory: about 200 bytes a key and a tensor, of which there may be 16,384 each.
  // kMalformed (damaged or lying), kUnsupported (another version, byte order, tensor type, nested arrays, one part of a split model), kLimit.
  static Result<Gguf> parse(std::span<const std::byte> file);

  uint32_t version() const { return version_; }
  const std::map<std::string_view, GgufValue>& values() const { return values_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }  // in the file's order

  // Null when there is none of that name.
  const GgufValue* find(std::string_view key) const;
  const GgufTensor* find_tensor(std::string_view name) const;

  // A key's value. Absent: the fallback, or kMalformed naming the key if there is none. Another type than asked for: kMalformed naming both.
  Result<int64_t> integer(std::string_view key, std::optional<int64_t> fallback = {}) const;  // any integer type
  Result<double> real(std::string_view key, std::optional<double> fallback = {}) const;       // f32 or f64
  Result<bool> boolean(std::string_view key, std::optional<bool> fallback = {}) const;
  Result<std::string_view> string(std::string_view key, std::optional<std::string_view> fallback = {}) const;
  // An array whose elements have that type; null when the key is absent.
  Result<const GgufValue*> array(std::string_view key, GgufType element) const;

 private:
  uint32_t version_ = 0;
  std::map<std::string_view, GgufValue> values_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string_view, size_t> tensor_index_;
};

// Calls visit(std::string_view) for each element of an array of strings that Gguf::parse has checked.
template <class Visit>
void each_string(const GgufValue& strings, Visit visit) {
  const std::byte* at = strings.bytes.data();
  for (uint64_t i = 0; i < strings.count; ++i) {
    uint64_t length = 0;
    std::memcpy(&length, at, sizeof length);
    visit(std::string_view(reinterpret_cast<const char*>(at + sizeof length), static_cast<size_t>(length)));
    at += sizeof length + length;
  }
}

}  // namespace tessera
