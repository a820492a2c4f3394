// The typed side of Gguf: look-ups by key, and the tables of value and tensor types.
#include <limits>
#include <utility>

#include "tessera/base/text.hpp"
#include "tessera/model/gguf.hpp"

namespace tessera {
namespace {

template <class T>
T load(const GgufValue& value) {
  T number{};
  std::memcpy(&number, value.bytes.data(), sizeof number);
  return number;
}

template <class T>
Result<T> absent(std::string_view key, std::optional<T> fallback) {
  if (fallback) return *fallback;
  return fail(ErrorCode::kMalformed, cat("key '", key, "' is missing; the model was not converted completely, convert or fetch it again"));
}

tl::unexpected<Error> wrong_type(std::string_view key, const GgufValue& value, std::string_view expected) {
  return fail(ErrorCode::kMalformed,
              cat("key '", key, "' has type ", value.is_array ? "array of " : "", name_of(value.type), "; expected ", expected));
}

// Sizes from the GGUF specification; ids that were withdrawn (4, 5, 31–33, 36–38) are unknown here.
constexpr GgmlType kGgmlTypes[] = {
    {0, "F32", 1, 4},        {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},    {3, "Q4_1", 32, 20},    {6, "Q5_0", 32, 22},
    {7, "Q5_1", 32, 24},     {8, "Q8_0", 32, 34},      {9, "Q8_1", 32, 36},    {10, "Q2_K", 256, 84},  {11, "Q3_K", 256, 110},
    {12, "Q4_K", 256, 144},  {13, "Q5_K", 256, 176},   {14, "Q6_K", 256, 210}, {15, "Q8_K", 256, 292}, {16, "IQ2_XXS", 256, 66},
    {17, "IQ2_XS", 256, 74}, {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50}, {20, "IQ4_NL", 32, 18}, {21, "IQ3_S", 256, 110},
    {22, "IQ2_S", 256, 82},  {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},       {25, "I16", 1, 2},      {26, "I32", 1, 4},
    {27, "I64", 1, 8},       {28, "F64", 1, 8},        {29, "IQ1_M", 256, 56}, {30, "BF16", 1, 2},     {34, "TQ1_0", 256, 54},
    {35, "TQ2_0", 256, 66},  {39, "MXFP4", 32, 17},
};

}  // namespace

std::string_view name_of(GgufType type) {
  constexpr std::string_view kNames[] = {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};
  return kNames[static_cast<size_t>(type)];
}

const GgmlType* find_ggml_type(uint32_t id) {
  for (const GgmlType& type : kGgmlTypes)
    if (type.id == id) return &type;
  return nullptr;
}

const GgufValue* Gguf::find(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

const GgufTensor* Gguf::find_tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

Result<int64_t> Gguf::integer(std::string_view key, std::optional<int64_t> fallback) const {
  const GgufValue* value = find(key);
  if (!value) return absent(key, fallback);
  if (value->is_array) return wrong_type(key, *value, "one integer");
  switch (value->type) {
    case GgufType::kU8: return load<uint8_t>(*value);
    case GgufType::kI8: return load<int8_t>(*value);
    case GgufType::kU16: return load<uint16_t>(*value);
    case GgufType::kI16: return load<int16_t>(*value);
    case GgufType::kU32: return load<uint32_t>(*value);
    case GgufType::kI32: return load<int32_t>(*value);
    case GgufType::kI64: return load<int64_t>(*value);
    case GgufType::kU64:
      if (const uint64_t number = load<uint64_t>(*value); !std::in_range<int64_t>(number))
        return fail(ErrorCode::kMalformed, cat("key '", key, "' is ", number, ", more than 63 bits hold"));
      return load<int64_t>(*value);
    default: return wrong_type(key, *value, "an integer");
  }
}

Result<double> Gguf::real(std::string_view key, std::optional<double> fallback) const {
  const GgufValue* value = find(key);
  if (!value) return absent(key, fallback);
  if (!value->is_array && value->type == GgufType::kF32) return load<float>(*value);
  if (!value->is_array && value->type == GgufType::kF64) return load<double>(*value);
  return wrong_type(key, *value, "a floating-point number");
}

Result<bool> Gguf::boolean(std::string_view key, std::optional<bool> fallback) const {
  const GgufValue* value = find(key);
  if (!value) return absent(key, fallback);
  if (!value->is_array && value->type == GgufType::kBool) return load<uint8_t>(*value) != 0;
  return wrong_type(key, *value, "bool");
}

Result<std::string_view> Gguf::string(std::string_view key, std::optional<std::string_view> fallback) const {
  const GgufValue* value = find(key);
  if (!value) return absent(key, fallback);
  if (value->is_array || value->type != GgufType::kString) return wrong_type(key, *value, "string");
  return std::string_view(reinterpret_cast<const char*>(value->bytes.data()), value->bytes.size());
}

Result<const GgufValue*> Gguf::array(std::string_view key, GgufType element) const {
  const GgufValue* value = find(key);
  if (value && (!value->is_array || value->type != element)) return wrong_type(key, *value, cat("array of ", name_of(element)));
  return value;
}

}  // namespace tessera
