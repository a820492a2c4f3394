// Weights: every tensor the architecture needs, with exactly its shape and a type its role allows.
#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "model_parts.hpp"
#include "tessera/base/text.hpp"

namespace tessera {
namespace {

// Matrices: every type that kernels read. Norms and biases: plain floats. Factors are read by the host: F32, as they are always stored.
bool allowed(const WeightFormat& format, TensorRole role) {
  if (role == TensorRole::kMatrix) return true;
  return role == TensorRole::kRopeFactors ? format.type == WeightType::kF32 : !is_quantized(format.type);
}

Result<WeightType> allowed_type(const GgufTensor& tensor, TensorRole role) {
  std::string names;
  for (const WeightFormat& format : kWeightFormats) {
    if (!allowed(format, role)) continue;
    if (format.ggml_type == tensor.type->id) return format.type;
    names += cat(names.empty() ? "" : ", ", format.name);
  }
  return fail(ErrorCode::kUnsupported, cat("tensor '", tensor.name, "' has type ", tensor.type->name, "; supported for it: ", names,
                                           ". Get or convert the model with one of these"));
}

Result<WeightRef> checked_weight(const GgufTensor& tensor, const TensorRequirement& requirement, const ModelConfig& config) {
  const int64_t rows = extent_of(requirement.rows, config);
  const int64_t columns = extent_of(requirement.columns, config);
  const std::array<uint64_t, 4> expected{static_cast<uint64_t>(columns), static_cast<uint64_t>(rows), 1, 1};
  if (tensor.dims != expected) {
    const auto shape = [](const std::array<uint64_t, 4>& dims) { return cat(dims[0], " x ", dims[1], " x ", dims[2], " x ", dims[3]); };
    return fail(ErrorCode::kMalformed, cat("tensor '", tensor.name, "' has shape ", shape(tensor.dims), ", but this configuration needs ",
                                           shape(expected), " (columns x rows); the file's keys and tensors do not belong together"));
  }
  TESSERA_ASSIGN(const WeightType type, allowed_type(tensor, requirement.role));
  return WeightRef{std::string(tensor.name), type, rows, columns, tensor.bytes};
}

// Tensors that no requirement asked for. A bias that the graph does not add changes the result and cannot be ignored.
Status check_extras(const Gguf& gguf, const Architecture& architecture, const std::set<std::string_view>& used, Warnings& warnings) {
  for (const GgufTensor& tensor : gguf.tensors()) {
    if (used.contains(tensor.name)) continue;
    if (tensor.name.ends_with(".bias"))
      return fail(ErrorCode::kUnsupported, cat("tensor '", tensor.name, "': a bias at this place cannot be run for the architecture ", architecture.name));
    warnings.add(cat("tensor '", tensor.name, "' is not part of the architecture ", architecture.name, " and ignored"));
  }
  return {};
}

// The first bad number of a row, or -1.
int64_t bad_column(const WeightRef& weight, const std::byte* row) {
  const WeightFormat& format = format_of(weight.type);
  const int64_t step = is_quantized(weight.type) ? format.group : 1;
  for (int64_t column = 0; column < weight.columns; column += step) {
    bool ok = true;
    if (is_quantized(weight.type)) {
      const QuantGroup group = decode_group(format, row, column / step);
      ok = std::isfinite(scale_of(format, group)) && std::isfinite(min_of(format, group));
    } else {
      float value = 0.0f;
      dequantize_row(weight.type, row + row_bytes(weight.type, column), 1, &value);
      ok = std::isfinite(value);
    }
    if (!ok) return column;
  }
  return -1;
}

}  // namespace

Result<std::vector<WeightRef>> read_weights(const Gguf& gguf, const Architecture& architecture, const ModelConfig& config, Warnings& warnings) {
  std::vector<WeightRef> weights;
  std::set<std::string_view> used;
  for (const TensorRequirement& requirement : architecture.tensors) {
    for (int layer = 0; layer < (requirement.per_layer ? config.n_layers : 1); ++layer) {
      const std::string name = requirement.per_layer ? cat("blk.", layer, ".", requirement.name) : std::string(requirement.name);
      const GgufTensor* tensor = gguf.find_tensor(name);
      if (!tensor && !requirement.required) continue;
      if (!tensor)
        return fail(ErrorCode::kMalformed, cat("tensor '", name, "' is missing (the file has ", gguf.tensors().size(), " tensors, the configuration ",
                                               config.n_layers, " layers); the model was not converted completely, convert or fetch it again"));
      TESSERA_ASSIGN(WeightRef weight, checked_weight(*tensor, requirement, config));
      weights.push_back(std::move(weight));
      used.insert(tensor->name);
    }
  }
  TESSERA_TRY(check_extras(gguf, architecture, used, warnings));
  std::ranges::sort(weights, {}, [](const WeightRef& weight) { return weight.bytes.data(); });
  return weights;
}

Result<std::vector<float>> read_rope_factors(const std::vector<WeightRef>& weights) {
  const auto found = std::ranges::find(weights, "rope_freqs.weight", &WeightRef::name);
  if (found == weights.end()) return std::vector<float>{};
  std::vector<float> factors(static_cast<size_t>(found->columns));
  dequantize_row(found->type, found->bytes.data(), found->columns, factors.data());
  for (size_t i = 0; i < factors.size(); ++i) {
    if (!(factors[i] > 0.0f) || !std::isfinite(factors[i]))
      return fail(ErrorCode::kMalformed,
                  cat("tensor 'rope_freqs.weight' has the value ", factors[i], " at ", i, "; every one must be finite and above 0"));
  }
  return factors;
}

Status ModelFile::check_values() const {
  for (const WeightRef& weight : weights()) {
    for (int64_t row = 0; row < weight.rows; ++row) {
      const int64_t column = bad_column(weight, weight.bytes.data() + row * row_bytes(weight.type, weight.columns));
      if (column >= 0)
        return fail(ErrorCode::kNumericFault, cat(path(), ": tensor '", weight.name, "' has NaN or infinity in row ", row, ", ",
                                                  is_quantized(weight.type) ? "in the scale of the block at column " : "column ", column,
                                                  "; the file is damaged or its conversion failed, fetch it again"));
    }
  }
  return {};
}

}  // namespace tessera
