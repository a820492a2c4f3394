// t.read and t.write: from a tensor's layout and coordinates to the text that reaches its texel. Addresses come from tensor/layout.hpp alone.
#pragma once
#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/codegen/dialect.hpp"
#include "tessera/codegen/kernel_source.hpp"
#include "tessera/tensor/index_text.hpp"
#include "tessera/tensor/layout.hpp"

namespace tessera::codegen {

// A texel in a buffer whose elements differ from its type. {0} = tensor, {1} = texel index, {2} = value. Without a way to write: for weights only.
struct BufferRow {
  DType element;
  Type texel;
  std::string_view opencl_type, opencl_read, opencl_write;
  std::string_view glsl_type, glsl_read, glsl_write;
  std::string_view read_needs, write_needs;
};

// clang-format off
inline constexpr BufferRow kBufferRows[] = {
    {DType::kF16, {Kind::kFloat, 1}, "half", "vload_half({1}, {0})", "vstore_half({2}, {1}, {0})",
     "float16_t", "float({0}[{1}])", "{0}[{1}] = float16_t(round_half_({2}))", "storage_16bit", "storage_16bit round_half_"},
    {DType::kF16, {Kind::kFloat, 2}, "half", "vload_half2({1}, {0})", "vstore_half2({2}, {1}, {0})",
     "uint", "unpackHalf2x16({0}[{1}])", "{0}[{1}] = packHalf2x16(round_half_({2}))", {}, "round_half_"},
    {DType::kF16, {Kind::kFloat, 4}, "half", "vload_half4({1}, {0})", "vstore_half4({2}, {1}, {0})",
     "uvec2", "load_half4_({0}[{1}])", "{0}[{1}] = store_half4_({2})", "load_half4_", "round_half_ store_half4_"},
    {DType::kF16, {Kind::kFloat, kWide}, "half", "vload_half{W}({1}, {0})", "vstore_half{W}({2}, {1}, {0})",
     "uvec2", "load_half4_({0}[{1}])", "{0}[{1}] = store_half4_({2})", "load_half4_", "round_half_ store_half4_"},
    {DType::kI8, {Kind::kFloat, 4}, "char", "convert_float4(vload4({1}, {0}))", "vstore4(convert_char4_sat_rte({2}), {1}, {0})",
     "uint", "unpack_i8_({0}[{1}])", "{0}[{1}] = pack_i8_({2})", "unpack_i8_", "pack_i8_"},
    {DType::kI8, {Kind::kFloat, kWide}, "char", "convert_float{W}(vload{W}({1}, {0}))", {}, "uint", "unpack_i8_({0}[{1}])", {}, "unpack_i8_", {}},
    {DType::kU8, {Kind::kFloat, kWide}, "uchar", "convert_float{W}(vload{W}({1}, {0}))", {}, "uint", "unpack_u8_({0}[{1}])", {}, "unpack_u8_", {}},
    {DType::kBF16, {Kind::kFloat, kWide}, "ushort", "as_float{W}(convert_uint{W}(vload{W}({1}, {0})) << 16)", {},
     "uvec2", "load_bf16_4_({0}[{1}])", {}, "load_bf16_4_", {}},
};
// clang-format on

// One pixel of an image. {0} = tensor, {1} = x, {2} = y, {3} = z, {4} = value, {5} = f, i or ui for read_imagef …, {6} = "", i or u for isampler2D …
struct ImageRow {
  Storage storage;
  std::string_view opencl_type, opencl_read, opencl_write;
  std::string_view glsl_in, glsl_read, glsl_out, glsl_write;
  std::string_view read_needs, write_needs;
};

// clang-format off
inline constexpr ImageRow kImageRows[] = {
    {Storage::kImageBuffer, "image1d_buffer_t", "read_image{5}({0}, {1})", "write_image{5}({0}, {1}, {4})",
     "{6}samplerBuffer", "texelFetch({0}, {1})", "{6}imageBuffer", "imageStore({0}, {1}, {4})", {}, {}},
    {Storage::kImage2D, "image2d_t", "read_image{5}({0}, nearest_, (int2)({1}, {2}))", "write_image{5}({0}, (int2)({1}, {2}), {4})",
     "{6}texture2D", "texelFetch({0}, ivec2({1}, {2}), 0)", "{6}image2D", "imageStore({0}, ivec2({1}, {2}), {4})", "nearest_ samplerless", {}},
    {Storage::kImage2DArray, "image2d_array_t", "read_image{5}({0}, nearest_, (int4)({1}, {2}, {3}, 0))", "write_image{5}({0}, (int4)({1}, {2}, {3}, 0), {4})",
     "{6}texture2DArray", "texelFetch({0}, ivec3({1}, {2}, {3}), 0)", "{6}image2DArray", "imageStore({0}, ivec3({1}, {2}, {3}), {4})", "nearest_ samplerless", {}},
    {Storage::kImage3D, "image3d_t", "read_image{5}({0}, nearest_, (int4)({1}, {2}, {3}, 0))", "write_image{5}({0}, (int4)({1}, {2}, {3}, 0), {4})",
     "{6}texture3D", "texelFetch({0}, ivec3({1}, {2}, {3}), 0)", "{6}image3D", "imageStore({0}, ivec3({1}, {2}, {3}), {4})", "nearest_ samplerless", "cl_khr_3d_image_writes"},
};
// clang-format on

constexpr const ImageRow* image_row(Storage storage) {
  for (const ImageRow& row : kImageRows)
    if (row.storage == storage) return &row;
  return nullptr;
}
// Every image storage is one that kernels reach. (Counted: under -fsanitize=undefined GCC takes no comparison with a null pointer as constant.)
static_assert([] {
  for (size_t i = 0; i < kStorageRows.size(); ++i) {
    int rows = 0;
    for (const ImageRow& row : kImageRows) rows += row.storage == static_cast<Storage>(i) ? 1 : 0;
    if (rows != (is_image(static_cast<Storage>(i)) ? 1 : 0)) return false;
  }
  return true;
}());

// What an image of a kind of texel is made of. Pixels of integers that are read as floats are converted: {0} = the pixel; no format: not written.
struct PixelRow {
  Kind kind;
  DType element;
  std::string_view opencl_suffix, glsl_prefix, glsl_format;
  std::string_view opencl_value = "{0}", glsl_value = "{0}";
  std::string_view stored = "{0}", write_needs = {};  // what is stored of the value {0}
};

inline constexpr PixelRow kPixelRows[] = {{Kind::kFloat, DType::kF32, "f", "", "rgba32f"},
                                          // rounded by the kernel: both APIs leave it to the driver whether a store rounds or cuts
                                          {.kind = Kind::kFloat, .element = DType::kF16, .opencl_suffix = "f", .glsl_prefix = "", .glsl_format = "rgba16f",
                                           .stored = "round_half_({0})", .write_needs = "round_half_"},
                                          {Kind::kFloat, DType::kBF16, "ui", "u", {}, "as_float4({0} << 16)", "uintBitsToFloat({0} << 16)"},
                                          {Kind::kFloat, DType::kI8, "i", "i", {}, "convert_float4({0})", "vec4({0})"},
                                          {Kind::kFloat, DType::kU8, "ui", "u", {}, "convert_float4({0})", "vec4({0})"},
                                          {Kind::kInt, DType::kI32, "i", "i", "rgba32i"},
                                          {Kind::kUint, DType::kU32, "ui", "u", "rgba32ui"}};

struct AccessText {
  std::string text;
  std::array<std::string_view, 2> needs;  // helpers and extensions, separated by spaces: of the object, of its pixels; of a buffer, to write and to read
};

// A tensor of the header bound to the layout of this variant.
class TensorAccess {
 public:
  // The message says what does not fit; the caller knows file and line.
  static Result<TensorAccess> bind(const TensorDecl& decl, const Layout& layout, const Spelling& spelling) {
    const TypeRow* row = type_row(decl.texel);
    if (row == nullptr || row->type.kind == Kind::kVoid || row->type.kind == Kind::kBool || row->type.kind == Kind::kPairs ||
        row->type.kind == Kind::kCalc)
      return fail(ErrorCode::kCompile, cat("a tensor's texel is float, int or uint, alone or as a vector, not '", decl.texel, "'"));
    TensorAccess access(decl, row->type, layout, spelling);
    TESSERA_TRY(access.check());
    return access;
  }

  const TensorDecl& decl() const { return *decl_; }
  Type texel() const { return texel_; }
  size_t axes() const { return layout_.grid.size(); }
  KernelSlot slot() const { return {std::string(decl_->name), layout_.storage, decl_->written}; }

  // OpenCL: a kernel parameter. GLSL: a global declaration of set 0.
  AccessText declaration(size_t binding) const {
    if (spelling_.target == Target::kOpenCL) return {opencl_parameter(), needs()};
    const std::string name(decl_->name);
    const std::string place = cat("layout(set = 0, binding = ", binding);
    if (image_ != nullptr && decl_->written)
      return {cat(place, ", ", pixel_->glsl_format, ") writeonly uniform ", fill(image_->glsl_out, {}), " ", name, ";"), needs()};
    if (image_ != nullptr) return {cat(place, ") uniform ", fill(image_->glsl_in, {}), " ", name, ";"), needs()};
    const std::string element = buffer_ != nullptr ? std::string(buffer_->glsl_type) : spelling_.type(texel_);
    const std::string_view access = decl_->in_place ? "" : decl_->written ? "writeonly " : "readonly restrict ";
    return {cat(place, ", std430) ", access, "buffer ", name, "_block_ { ", element, " ", name, "[]; };"), needs()};
  }

  AccessText read(std::span<const IndexText> coords) const {
    const TexelAddress<IndexText> at = locate<IndexText>(layout_, coords);
    if (image_ == nullptr) return fill_buffer(buffer_ != nullptr ? spelling_.choose(buffer_->opencl_read, buffer_->glsl_read) : "{0}[{1}]", at.x);
    std::string pixels;
    for (int p = 0; p < layout_.pixels_per_texel(); ++p) {
      const std::string pixel = fill(spelling_.choose(image_->opencl_read, image_->glsl_read), at, p);
      pixels += (p == 0 ? "" : ", ") + spelling_.fill(spelling_.choose(pixel_->opencl_value, pixel_->glsl_value), {&pixel, 1});
    }
    if (layout_.pixels_per_texel() > 1) pixels = spelling_.construct(texel_, pixels);
    return {pixels, needs()};
  }

  // A whole statement.
  AccessText write(const std::string& value, std::span<const IndexText> coords) const {
    const TexelAddress<IndexText> at = locate<IndexText>(layout_, coords);
    if (image_ == nullptr) {
      AccessText out = fill_buffer(buffer_ != nullptr ? spelling_.choose(buffer_->opencl_write, buffer_->glsl_write) : "{0}[{1}] = {2}", at.x, value);
      out.text += ";";
      return out;
    }
    const std::string_view pattern = spelling_.choose(image_->opencl_write, image_->glsl_write);
    if (layout_.pixels_per_texel() == 1) return {fill(pattern, at, 0, spelling_.fill(pixel_->stored, {&value, 1})) + ";", needs()};
    // Several pixels: the value is computed once, then stored a quarter of it (or a half) at a time.
    constexpr std::string_view kParts[] = {"s0123", "s4567", "s89ab", "scdef"};
    std::string out = "{ const " + spelling_.type(texel_) + " texel_ = " + value + "; ";
    for (int p = 0; p < layout_.pixels_per_texel(); ++p) {
      const std::string part = cat("texel_.", kParts[p]);
      out += fill(pattern, at, p, spelling_.fill(pixel_->stored, {&part, 1})) + "; ";
    }
    return {out + "}", needs()};
  }

  // A whole statement: that the texel will soon be read. Buffers of OpenCL drivers that are CPUs; elsewhere nothing, lanes hide each other's waiting.
  AccessText prefetch(std::span<const IndexText> coords) const {
    if (image_ != nullptr || spelling_.target != Target::kOpenCL) return {";", {}};
    const std::string lanes = buffer_ != nullptr ? cat(" * ", layout_.lanes) : std::string();
    return {cat("prefetch_(", decl_->name, " + (", locate<IndexText>(layout_, coords).x.text(), ")", lanes, ");"), {"prefetch_", ""}};
  }

 private:
  TensorAccess(const TensorDecl& decl, Type texel, const Layout& layout, const Spelling& spelling)
      : decl_(&decl), texel_(texel), layout_(layout), spelling_(spelling) {}

  Status check() {
    const int lanes = texel_.lanes == kWide ? spelling_.words.vector_width : texel_.lanes;
    const auto wrong = [&](auto&&... parts) { return tessera::fail(ErrorCode::kCompile, cat("tensor '", decl_->name, "': ", parts...)); };
    if (layout_.grid.size() != decl_->axes.size())
      return wrong("has ", decl_->axes.size(), " axes, the layout of this variant ", layout_.grid.size());
    for (int64_t extent : layout_.grid)
      if (extent < 1) return wrong("the layout has an axis of extent ", extent);
    if (layout_.lanes != lanes) return wrong("a texel of ", decl_->texel, " has ", lanes, " lanes, the layout of this variant ", layout_.lanes);
    if (decl_->in_place && layout_.storage != Storage::kBuffer)
      return tessera::fail(ErrorCode::kUnsupported, cat("tensor '", decl_->name, "': what is 'inout' lives in a buffer, not in storage ", name_of(layout_.storage)));
    return is_image(layout_.storage) ? check_image(lanes) : check_buffer();
  }

  Status check_buffer() {
    for (const BufferRow& row : kBufferRows)
      if (row.element == layout_.element && row.texel == texel_) buffer_ = &row;
    const DType natural = texel_.kind == Kind::kFloat ? DType::kF32 : texel_.kind == Kind::kInt ? DType::kI32 : DType::kU32;
    const bool one_way = buffer_ != nullptr && buffer_->opencl_write.empty();
    if ((buffer_ == nullptr && layout_.element != natural) || (one_way && decl_->written)) return no_such_element();
    return {};
  }

  Status check_image(int lanes) {
    image_ = image_row(layout_.storage);
    if (lanes < 4)
      return tessera::fail(ErrorCode::kUnsupported,
                           cat("tensor '", decl_->name, "': images hold texels of 4 lanes or more; ", decl_->texel, " lives in a buffer"));
    for (const PixelRow& row : kPixelRows)
      if (row.kind == texel_.kind && row.element == layout_.element) pixel_ = &row;
    return pixel_ == nullptr || (decl_->written && pixel_->glsl_format.empty()) ? no_such_element() : Status();
  }

  Status no_such_element() const {
    return tessera::fail(ErrorCode::kUnsupported, cat("tensor '", decl_->name, "': a texel of ", decl_->texel, decl_->written ? " that is written" : "",
                                                      " cannot have elements of ", name_of(layout_.element), " in storage ", name_of(layout_.storage)));
  }

  std::string opencl_parameter() const {
    if (image_ != nullptr) return cat(decl_->written ? "__write_only " : "__read_only ", image_->opencl_type, " ", decl_->name);
    const std::string element = buffer_ != nullptr ? std::string(buffer_->opencl_type) : spelling_.type(texel_);
    return cat(decl_->written ? "__global " : "__global const ", element, decl_->written ? "* " : "* restrict ", decl_->name);
  }

  AccessText fill_buffer(std::string_view pattern, const IndexText& index, const std::string& value = {}) const {
    const std::string args[] = {std::string(decl_->name), index.text(), value};
    return {spelling_.fill(pattern, args), needs()};
  }
  std::array<std::string_view, 2> needs() const {
    if (image_ != nullptr) return {decl_->written ? image_->write_needs : image_->read_needs, decl_->written ? pixel_->write_needs : ""};
    if (buffer_ == nullptr) return {};
    return {decl_->written ? buffer_->write_needs : "", !decl_->written || decl_->in_place ? buffer_->read_needs : ""};
  }

  // The pixel `beside` pixels right of `at`.
  std::string fill(std::string_view pattern, const TexelAddress<IndexText>& at, int beside = 0, const std::string& value = {}) const {
    const std::string args[] = {std::string(decl_->name), (at.x + IndexText(beside)).text(), at.y.text(), at.z.text(), value,
                                std::string(pixel_->opencl_suffix), std::string(pixel_->glsl_prefix)};
    return spelling_.fill(pattern, args);
  }

  const TensorDecl* decl_;
  Type texel_;
  Layout layout_;
  Spelling spelling_;
  const BufferRow* buffer_ = nullptr;  // elements unlike the type
  const ImageRow* image_ = nullptr;
  const PixelRow* pixel_ = nullptr;
};

}  // namespace tessera::codegen
