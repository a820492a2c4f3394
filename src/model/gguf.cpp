#include "tessera/model/gguf.hpp"

#include <algorithm>
#include <bit>
#include <limits>

#include "gguf_cursor.hpp"
#include "tessera/base/bytes.hpp"
#include "tessera/base/text.hpp"

namespace tessera {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF numbers are read as they lie in the file");

constexpr uint64_t kMaxEntries = 16384;                      // keys, and tensors: far above any model, and our own tables stay at a few MiB
constexpr uint64_t kMinKeyBytes = 8 + 1 + 4 + 1;             // length, one character, type, the smallest value
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;  // length, one character, dimension count, one dimension, type, offset
constexpr uint64_t kMaxKeyLength = 65535;                    // both lengths are the specification's
constexpr uint64_t kMaxTensorName = 64;
constexpr int64_t kDefaultAlignment = 32;
constexpr int64_t kMaxAlignment = 65536;

struct OtherFormat {
  std::string_view start;
  size_t at;
  std::string_view what;
};
// What people hand over by mistake, by its bytes.
constexpr OtherFormat kOtherFormats[] = {
    {"FUGG", 0, "it is a big-endian GGUF file, and only little-endian ones can be read: convert the model again for little-endian"},
    {"{\"", 8, "it looks like a .safetensors file: convert it to GGUF first"},
    {"PK\x03\x04", 0, "it looks like a PyTorch .bin/.pt file or a zip archive: convert or unpack it to GGUF first"},
    {"lmgg", 0, "it is in the old ggml format: convert the original model to GGUF"},
    {"fmgg", 0, "it is in the old ggmf format: convert the original model to GGUF"},
    {"tjgg", 0, "it is in the old ggjt format: convert the original model to GGUF"},
    {"version https://git-lfs", 0, "it is a Git LFS pointer, not the model itself: fetch the file with 'git lfs pull'"},
    {"<!", 0, "it looks like a web page: the download link gave a page instead of the file"},
    {"<html", 0, "it looks like a web page: the download link gave a page instead of the file"},
};

Status check_magic(std::string_view file) {
  if (file.size() < 4) return fail(ErrorCode::kMalformed, cat("the file has only ", file.size(), " bytes, too few for a GGUF file; fetch it again"));
  if (file.substr(0, 4) == "GGUF") return {};
  for (const OtherFormat& format : kOtherFormats) {
    if (file.size() > format.at && file.substr(format.at).starts_with(format.start))
      return fail(ErrorCode::kUnsupported, cat("not a little-endian GGUF file: ", format.what));
  }
  return fail(ErrorCode::kMalformed, cat("not a GGUF file: it starts with '", escaped(file.substr(0, 4)),
                                         "' instead of 'GGUF'. Is it a .safetensors or .bin file? Only .gguf files can be read"));
}

Status check_version(uint32_t version) {
  if (version == 2 || version == 3) return {};
  const uint32_t swapped = __builtin_bswap32(version);
  if (swapped >= 1 && swapped <= 3)
    return fail(ErrorCode::kUnsupported,
                "the file is big-endian, and only little-endian ones can be read: convert the model again for little-endian");
  return fail(ErrorCode::kUnsupported, cat("GGUF version ", version, "; versions 2 and 3 can be read: convert the model again"));
}

// A claimed count against what the rest of the file could hold, before anything is allocated for it.
Status check_count(std::string_view what, uint64_t count, uint64_t least_bytes, uint64_t remaining) {
  if (count > remaining / least_bytes) {
    return fail(ErrorCode::kMalformed,
                cat("claims ", count, " ", what, ", but the ", remaining, " bytes left hold at most ", remaining / least_bytes, kFetchAgain));
  }
  if (count > kMaxEntries) return fail(ErrorCode::kLimit, cat("has ", count, " ", what, "; at most ", kMaxEntries, " are read"));
  return {};
}

Status check_name(std::string_view what, std::string_view name, uint64_t limit) {
  if (name.empty()) return fail(ErrorCode::kMalformed, cat("a ", what, " is empty"));
  if (name.size() > limit)
    return fail(ErrorCode::kMalformed, cat("a ", what, " has ", name.size(), " bytes ('", escaped(name, 40), "'); at most ", limit, " are allowed"));
  for (const char c : name) {
    if (c < 0x20 || c > 0x7e)
      return fail(ErrorCode::kMalformed, cat("the ", what, " '", escaped(name), "' has a byte that is not a printable ASCII character"));
  }
  return {};
}

// Bytes of one value; strings and arrays have no fixed size.
constexpr uint64_t size_of(GgufType type) {
  constexpr uint64_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return kSizes[static_cast<size_t>(type)];
}

Result<GgufType> read_type(GgufCursor& in) {
  TESSERA_ASSIGN(const uint32_t id, in.number<uint32_t>("a value type"));
  if (id > static_cast<uint32_t>(GgufType::kF64))
    return fail(ErrorCode::kMalformed, cat("value type ", id, " is unknown; types are 0 to ", static_cast<uint32_t>(GgufType::kF64)));
  return static_cast<GgufType>(id);
}

Status read_strings(GgufCursor& in, GgufValue& value) {
  if (value.count > in.remaining() / 8)
    return fail(ErrorCode::kMalformed, cat("claims ", value.count, " strings, but only ", in.remaining(), " bytes are left", kFetchAgain));
  const uint64_t start = in.position();
  for (uint64_t i = 0; i < value.count; ++i) TESSERA_TRY(in.string("a string of an array"));
  value.bytes = in.since(start);
  return {};
}

Status read_elements(GgufCursor& in, GgufValue& value) {
  const auto bytes = checked_mul(value.count, size_of(value.type));
  if (!bytes) return fail(ErrorCode::kMalformed, cat("claims ", value.count, " elements of type ", name_of(value.type), kFetchAgain));
  TESSERA_ASSIGN(value.bytes, in.take(*bytes, value.is_array ? "an array" : "a value"));
  if (value.type != GgufType::kBool) return {};
  for (const std::byte b : value.bytes)
    if (std::to_integer<int>(b) > 1)
      return fail(ErrorCode::kMalformed, cat("a bool has the value ", std::to_integer<int>(b), "; 0 and 1 are allowed"));
  return {};
}

Result<GgufValue> read_value(GgufCursor& in) {
  GgufValue value;
  TESSERA_ASSIGN(value.type, read_type(in));
  if (value.type == GgufType::kArray) {
    value.is_array = true;
    TESSERA_ASSIGN(value.type, read_type(in));
    if (value.type == GgufType::kArray) return fail(ErrorCode::kUnsupported, "arrays of arrays cannot be read");
    TESSERA_ASSIGN(value.count, in.number<uint64_t>("an array length"));
  }
  if (value.type != GgufType::kString) {
    TESSERA_TRY(read_elements(in, value));
  } else if (value.is_array) {
    TESSERA_TRY(read_strings(in, value));
  } else {
    TESSERA_ASSIGN(const std::string_view text, in.string("a string"));
    value.bytes = std::as_bytes(std::span(text));
  }
  return value;
}

Status read_entry(GgufCursor& in, std::map<std::string_view, GgufValue>& values) {
  TESSERA_ASSIGN(const std::string_view key, in.string("a key"));
  TESSERA_TRY(check_name("key", key, kMaxKeyLength));
  auto value = read_value(in);
  if (!value) return fail(std::move(value).error().within(cat("key '", escaped(key), "'")));
  if (!values.emplace(key, *value).second) return fail(ErrorCode::kMalformed, cat("the key '", escaped(key), "' appears twice"));
  return {};
}

struct TensorPlace {
  uint64_t offset = 0;  // from the start of the data section, as claimed
  uint64_t bytes = 0;
};

std::string shape_text(const GgufTensor& tensor) {
  std::string text = "[";
  for (uint32_t i = 0; i < tensor.n_dims; ++i) text += cat(i ? ", " : "", tensor.dims[i]);
  return text + "]";
}

Result<uint64_t> size_in_bytes(const GgufTensor& tensor) {
  std::optional<uint64_t> elements = 1;
  for (const uint64_t dim : tensor.dims) {
    if (dim == 0) return fail(ErrorCode::kMalformed, cat("shape ", shape_text(tensor), " has a dimension of 0"));
    if (elements) elements = checked_mul(*elements, dim);
  }
  // Element counts are kept in int64_t from here on.
  if (!elements || *elements > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    return fail(ErrorCode::kMalformed, cat("shape ", shape_text(tensor), " has more elements than 63 bits count"));
  if (tensor.dims[0] % tensor.type->block != 0) {
    return fail(ErrorCode::kMalformed,
                cat("its rows have ", tensor.dims[0], " values, but type ", tensor.type->name, " stores blocks of ", tensor.type->block));
  }
  const auto bytes = checked_mul(*elements / tensor.type->block, tensor.type->block_bytes);
  if (!bytes)
    return fail(ErrorCode::kMalformed, cat("shape ", shape_text(tensor), " of type ", tensor.type->name, " has more bytes than 64 bits count"));
  return *bytes;
}

Result<TensorPlace> read_tensor_body(GgufCursor& in, GgufTensor& tensor) {
  TESSERA_ASSIGN(tensor.n_dims, in.number<uint32_t>("a dimension count"));
  if (tensor.n_dims < 1 || tensor.n_dims > tensor.dims.size())
    return fail(ErrorCode::kMalformed, cat("it has ", tensor.n_dims, " dimensions; 1 to ", tensor.dims.size(), " are allowed"));
  for (uint32_t i = 0; i < tensor.n_dims; ++i) {
    TESSERA_ASSIGN(tensor.dims[i], in.number<uint64_t>("a dimension"));
  }
  TESSERA_ASSIGN(const uint32_t type, in.number<uint32_t>("a tensor type"));
  TensorPlace place;
  TESSERA_ASSIGN(place.offset, in.number<uint64_t>("a tensor offset"));
  tensor.type = find_ggml_type(type);
  if (!tensor.type)
    return fail(ErrorCode::kUnsupported, cat("tensor type ", type, " is unknown to this build: convert the model again with a common type"));
  TESSERA_ASSIGN(place.bytes, size_in_bytes(tensor));
  return place;
}

Result<TensorPlace> read_tensor(GgufCursor& in, GgufTensor& tensor) {
  TESSERA_ASSIGN(tensor.name, in.string("a tensor name"));
  TESSERA_TRY(check_name("tensor name", tensor.name, kMaxTensorName));
  auto place = read_tensor_body(in, tensor);
  if (!place) return fail(std::move(place).error().within(cat("tensor '", escaped(tensor.name), "'")));
  return place;
}

Result<uint64_t> alignment_of(const Gguf& gguf) {
  const GgufValue* value = gguf.find("general.alignment");
  if (value && (value->is_array || value->type != GgufType::kU32)) return fail(ErrorCode::kMalformed, "key 'general.alignment' must be a single u32");
  TESSERA_ASSIGN(const int64_t alignment, gguf.integer("general.alignment", kDefaultAlignment));
  if (alignment < 8 || alignment > kMaxAlignment || !std::has_single_bit(static_cast<uint64_t>(alignment)))
    return fail(ErrorCode::kMalformed, cat("key 'general.alignment' is ", alignment, "; it must be a power of two from 8 to ", kMaxAlignment));
  return static_cast<uint64_t>(alignment);
}

Status check_single_file(const Gguf& gguf) {
  TESSERA_ASSIGN(const int64_t parts, gguf.integer("split.count", 1));
  if (parts <= 1) return {};
  return fail(ErrorCode::kUnsupported, cat("this is one part of a model split over several files (split.count is ", parts,
                                           "), which cannot be read: merge the parts into one file first"));
}

// The bytes of a tensor, once its place is known to lie inside the file.
Status place_tensor(std::span<const std::byte> file, uint64_t data_start, uint64_t alignment, const TensorPlace& place, GgufTensor& tensor) {
  const auto malformed = [&](const auto&... parts) { return fail(ErrorCode::kMalformed, cat("tensor '", escaped(tensor.name), "' ", parts...)); };
  if (place.offset % alignment != 0) return malformed("starts at offset ", place.offset, ", which is not a multiple of the alignment ", alignment);
  const auto start = checked_add(data_start, place.offset);
  const auto end = start ? checked_add(*start, place.bytes) : std::nullopt;
  if (!end) return malformed("has offset ", place.offset, " and ", place.bytes, " bytes, whose end does not fit in 64 bits");
  if (*end > file.size())
    return malformed("ends at byte ", *end, " but the file has ", file.size(), " bytes; the download is probably incomplete, fetch it again");
  tensor.bytes = file.subspan(*start, place.bytes);
  return {};
}

Status check_overlaps(const std::vector<GgufTensor>& tensors) {
  std::vector<const GgufTensor*> by_place;
  for (const GgufTensor& tensor : tensors) by_place.push_back(&tensor);
  std::sort(by_place.begin(), by_place.end(), [](const GgufTensor* a, const GgufTensor* b) { return a->bytes.data() < b->bytes.data(); });
  for (size_t i = 1; i < by_place.size(); ++i) {
    const GgufTensor& before = *by_place[i - 1];
    if (before.bytes.data() + before.bytes.size() > by_place[i]->bytes.data())
      return fail(ErrorCode::kMalformed, cat("tensors '", escaped(before.name), "' and '", escaped(by_place[i]->name), "' overlap in the file"));
  }
  return {};
}

}  // namespace

Result<Gguf> Gguf::parse(std::span<const std::byte> file) {
  TESSERA_TRY(check_magic({reinterpret_cast<const char*>(file.data()), file.size()}));
  Gguf gguf;
  GgufCursor in(file);
  TESSERA_TRY(in.number<uint32_t>("the magic number"));
  TESSERA_ASSIGN(gguf.version_, in.number<uint32_t>("the version"));
  TESSERA_TRY(check_version(gguf.version_));
  TESSERA_ASSIGN(const uint64_t n_tensors, in.number<uint64_t>("the tensor count"));
  TESSERA_ASSIGN(const uint64_t n_keys, in.number<uint64_t>("the key count"));
  TESSERA_TRY(check_count("keys", n_keys, kMinKeyBytes, in.remaining()));
  TESSERA_TRY(check_count("tensors", n_tensors, kMinTensorBytes, in.remaining()));

  for (uint64_t i = 0; i < n_keys; ++i) TESSERA_TRY(read_entry(in, gguf.values_));
  TESSERA_TRY(check_single_file(gguf));
  TESSERA_ASSIGN(const uint64_t alignment, alignment_of(gguf));

  std::vector<TensorPlace> places;
  for (uint64_t i = 0; i < n_tensors; ++i) {
    GgufTensor tensor;
    TESSERA_ASSIGN(const TensorPlace place, read_tensor(in, tensor));
    if (!gguf.tensor_index_.emplace(tensor.name, i).second)
      return fail(ErrorCode::kMalformed, cat("tensor '", escaped(tensor.name), "' appears twice"));
    gguf.tensors_.push_back(tensor);
    places.push_back(place);
  }
  const auto data_start = checked_round_up(in.position(), alignment);
  if (!data_start) return fail(ErrorCode::kMalformed, "the data section starts past 64 bits");
  for (size_t i = 0; i < places.size(); ++i) TESSERA_TRY(place_tensor(file, *data_start, alignment, places[i], gguf.tensors_[i]));
  TESSERA_TRY(check_overlaps(gguf.tensors_));
  return gguf;
}

}  // namespace tessera
