// Element types as they lie in device memory.
#pragma once
#include <cstdint>
#include <string_view>

namespace tessera {

// bf16: the upper half of an f32.
enum class DType : uint8_t { kF32, kF16, kBF16, kI8, kU8, kI32, kU32 };

constexpr int64_t byte_size(DType type) {
  switch (type) {
    case DType::kF16:
    case DType::kBF16: return 2;
    case DType::kI8:
    case DType::kU8: return 1;
    default: return 4;
  }
}

constexpr std::string_view name_of(DType type) {
  constexpr std::string_view kNames[] = {"f32", "f16", "bf16", "i8", "u8", "i32", "u32"};
  return kNames[static_cast<int>(type)];
}

}  // namespace tessera
