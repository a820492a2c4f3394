// Lowered kernels on a device: words compute what the page says, and kernels find every texel where the host put it.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "gpu_fixture.hpp"
#include "tessera/base/half.hpp"

namespace tessera::gpu {
namespace {

using test::KernelTexts;

// An API and the lanes of floatw.
using ApiAndWidth = std::tuple<Api, int>;

std::vector<ApiAndWidth> widths() {
  std::vector<ApiAndWidth> all;
  for (const Api api : apis())
    for (const int width : {4, 8, 16})
      if (api == Api::kOpenCL || width == 4) all.emplace_back(api, width);   // GLSL has no wider vectors
  return all;
}
std::string width_name(const testing::TestParamInfo<ApiAndWidth>& info) { return cat(name_of(std::get<Api>(info.param)), "_", std::get<int>(info.param)); }

const std::vector<uint32_t> kQ = {0x80ff7f01u, 0x7f010203u, 0x12345678u, 0x9abcdef0u};

class CodegenDevice : public GpuTest, public testing::WithParamInterface<ApiAndWidth> {
 protected:
  void SetUp() override { open(std::get<Api>(GetParam())); }
  int width() const { return std::get<int>(GetParam()); }
  std::unique_ptr<Kernel> lowered(const std::string& text, const KernelVariant& variant) {
    const Result<LoweredKernel> made = lower(KernelTexts{{"k", text}}, variant, device->target(), {});
    EXPECT_TRUE(made) << made.error().message();
    return kernel(*made);
  }
  template <class T>
  std::unique_ptr<Buffer> filled(const std::vector<T>& values) {
    auto made = buffer(static_cast<int64_t>(values.size() * sizeof(T)));
    EXPECT_TRUE(device->write(*made, 0, bytes_of(values)));
    return made;
  }
  void dispatch(Kernel& kernel, std::vector<Binding> bindings, std::array<int64_t, 3> workgroups) {
    auto list = device->create_list();
    ASSERT_TRUE(list);
    const Status recorded =
        (*list)->dispatch({.kernel = &kernel, .bindings = std::move(bindings), .args = {}, .workgroups = workgroups, .label = "test"});
    ASSERT_TRUE(recorded) << recorded.error().message();
    ASSERT_TRUE((*list)->finish());
    run(**list);
  }
  // What each of `expressions` is, with kQ as `q` and (−2, −1.25, −0.5, 0.25) as `v`. An error where the device has no kernel for these words.
  Result<std::vector<float>> values_of(const std::vector<std::string>& expressions, const WordChoice& choice) {
    std::string text =
        "tensor in uint4 words [i]; tensor in float4 values [i]; tensor out float y [i];\nkernel k(1, 1, 1) {\nconst uint4 q = words.read(0);\nconst "
        "float4 v = values.read(0);\n";
    for (size_t i = 0; i < expressions.size(); ++i) text += cat("y.write(", expressions[i], ", ", i, ");\n");
    KernelVariant variant{"k", {}, {}, choice};
    variant.tensors = {{"words", test::buffer_of(DType::kU32, 4, {1})}, {"values", test::buffer_of(DType::kF32, 4, {1})}, {"y", test::buffer_of(DType::kF32, 1, {256})}};
    TESSERA_ASSIGN(const LoweredKernel made, lower(KernelTexts{{"k", text + "}"}}, variant, device->target(), {}));
    TESSERA_ASSIGN(const std::unique_ptr<Kernel> program, device->compile(made));
    const auto words = filled(kQ);
    const auto values = filled(std::vector<float>{-2.0f, -1.25f, -0.5f, 0.25f});
    const auto y = buffer(static_cast<int64_t>(expressions.size() * sizeof(float)));
    dispatch(*program, {whole(*words), whole(*values), whole(*y)}, {1, 1, 1});
    return floats(*y, 0, expressions.size());
  }
  static Binding whole(Buffer& of) { return {.buffer = &of, .offset = 0, .bytes = of.bytes(), .image = nullptr}; }
};

struct WordCase {
  std::string expression;
  float expected;
};

// With kQ and f[i] = 0.75 · i − 2. Expected values follow from the words' definitions in kernels/README.md.
std::vector<WordCase> word_cases(int width) {
  const auto f = [](int i) { return 0.75f * static_cast<float>(i) - 2.0f; };
  std::vector<WordCase> cases = {
      {"unpack_u8(q.x).x", 1.0f},
      {"unpack_u8(q.x).z", 255.0f},
      {"unpack_u8(q.x).w", 128.0f},
      {"unpack_i8(q.x).y", 127.0f},
      {"unpack_i8(q.x).z", -1.0f},
      {"unpack_i8(q.x).w", -128.0f},
      {"float(pack_i8(float4(1.5f, -2.5f, 300.0f, -300.0f)) == 0x807ffe02u ? 1 : 0)", 1.0f},  // to even, saturated
      {"bits_float(bits_uint(v.y))", f(1)},
      {"float(mul_hi(q.z, q.w) == 0x0b00ea4eu ? 1 : 0)", 1.0f},
      {"float(mul_hi(0xffffffffu, 0xffffffffu + q.x - q.x) == 0xfffffffeu ? 1 : 0)", 1.0f},
      {"unpack_half2(pack_half2(float2(v.x, 1.0f / 3.0f))).x", f(0)},
      {"unpack_half2(pack_half2(float2(v.x, 1.0f / 3.0f))).y", 0.33325195f},
      {"float(pack_half2(float2(1.0f, -2.0f)) == 0xc0003c00u ? 1 : 0)", 1.0f},
      {"horizontal_sum(v)", f(0) + f(1) + f(2) + f(3)},
      {"max_abs(v)", 2.0f},
      {"max_abs(-v * 0.5f)", 1.0f},
      {"dot(v, v)", f(0) * f(0) + f(1) * f(1) + f(2) * f(2) + f(3) * f(3)},
      {"round_even(2.5f + v.x * 0.0f)", 2.0f},
      {"clamp(v, -1.0f, 0.0f).x", -1.0f},
      {"lane(truncate(floatw(v.y)), 1)", -1.0f},
      {"lane(truncate(floatw(7.75f)), 0)", 7.0f},
      {"lane(round_half(floatw(1.0f / 3.0f)), 1)", 0.33325195f},
      {"lane(round_half(floatw(v.x)), 0)", f(0)},
      {"mad(v.x, v.y, v.z)", f(0) * f(1) + f(2)},
      {"rsqrt(v.x * v.x)", 0.5f},
      {"float(clamp(int(v.x), -1, 1))", -1.0f},
      {"fmin(v, 0.0f).w", 0.0f},
  };
  for (int i = 0; i < width; ++i) {
    const auto lane_of = [&](const char* value) { return cat("lane(", value, ", ", i, ")"); };
    cases.push_back({lane_of("to_floatw(to_intw((uintw(q.x) >> 8) & 255u))"), 127.0f});
    cases.push_back({lane_of("to_floatw(to_intw(uintw(q.x) << 8) >> 24)"), -1.0f});
    cases.push_back({cat("horizontal_max(with_lane(floatw(-2.0f), ", i, ", -1.0f))"), -1.0f});
    cases.push_back({lane_of("rotate_pairs(with_lane(floatw(2.0f), 1, 3.0f), with_lane(floatw(5.0f), 0, 7.0f))"), i == 0 ? 2.0f * 7.0f - 3.0f * 5.0f : i == 1 ? 2.0f * 5.0f + 3.0f * 7.0f : i % 2 == 0 ? 0.0f : 20.0f});
  }
  // Every lane is in its own vector's sum, once.
  std::string ramp = "floatw(0.0f)";
  float sum = 0.0f;
  for (int i = 0; i < width; ++i, sum += static_cast<float>(i * i)) ramp = cat("with_lane(", ramp, ", ", i, ", ", (i + 1) * (i + 1), ".0f)");
  for (int k = 0; k < 4; ++k) {
    const auto times = [&](int n) { return cat(ramp, " * ", n, ".0f"); };
    cases.push_back({cat("horizontal_sums(", times(1), ", ", times(2), ", ", times(3), ", ", times(5), ").", "xyzw"[k]), sum * static_cast<float>(k == 3 ? 5 : k + 1)});
  }
  return cases;
}

TEST_P(CodegenDevice, WordsComputeWhatThePageSays) {
  const std::vector<WordCase> cases = word_cases(width());
  std::vector<std::string> expressions;
  for (const WordCase& each : cases) expressions.push_back(each.expression);
  const auto got = values_of(expressions, {width()});
  ASSERT_TRUE(got) << got.error().message();
  for (size_t i = 0; i < cases.size(); ++i) EXPECT_FLOAT_EQ((*got)[i], cases[i].expected) << cases[i].expression << " with W = " << width();
}

// calc is half where the words say so: 2049 has no place between 2048 and 2050, 1 / 3 has 11 bits.
TEST_P(CodegenDevice, CalcIsHalfWhereTheDeviceComputesInHalves) {
  const std::vector<std::string> expressions = {"float(calc(v.x) * calc(v.y) + calc(0.25f))", "float(calc(2048.0f) + calc(v.w * 4.0f))", "float(calc(1.0f) / calc(v.w * 12.0f))",
                                                "to_float4(to_calc4(v) * calc(0.5f)).y", "float(dot(to_calc4(v), to_calc4(v)))"};
  const float third = 1.0f / 3.0f;
  const auto whole = values_of(expressions, {width()});
  ASSERT_TRUE(whole) << whole.error().message();
  EXPECT_EQ((*whole)[1], 2049.0f);
  EXPECT_FLOAT_EQ((*whole)[2], third);
  if (!device->info().fp16_arithmetic) GTEST_SKIP() << device->info().name << " does not compute in halves";
  const auto half = values_of(expressions, {.vector_width = width(), .half_calc = true});
  ASSERT_TRUE(half) << half.error().message();
  EXPECT_EQ((*half)[0], 2.75f);
  EXPECT_EQ((*half)[1], 2048.0f);
  EXPECT_NEAR((*half)[2], third, third * 0x1p-9f);  // division: 1 ulp of halves, 2⁻¹⁰, and more where it is a reciprocal and a product
  EXPECT_NE((*half)[2], (*whole)[2]);
  EXPECT_EQ((*half)[3], -0.625f);
  EXPECT_EQ((*half)[4], 5.875f);
}

// The packed dots, over the whole range that the words promise, where a device has the instructions; and as many at once as the 16-bit sums hold.
TEST_P(CodegenDevice, PackedDotsAreExactInEverySpelling) {
  const std::pair<uint32_t, uint32_t> kPairs[] = {{0x80818081u, 0x7f7f7f7fu}, {0x7f7f7f7fu, 0x7f7f7f7fu}, {0x81ff7f01u, 0x7f010203u}, {0u, 0x7f7f7f7fu}, {0xfedcba98u, 0x01234567u}};
  std::vector<std::string> expressions;
  std::vector<float> expected;
  const auto expect = [&](const std::string& pairs, int sum) {
    for (const int row : {0, width() - 1}) {
      expressions.push_back(cat("lane(to_floatw(sum_pairs(", pairs, ")), ", row, ")"));
      expected.push_back(static_cast<float>(sum));
    }
  };
  const auto dot = [](uint32_t a, uint32_t w) {
    int sum = 0;
    for (int byte = 0; byte < 4; ++byte) sum += static_cast<int8_t>(a >> (8 * byte)) * static_cast<int8_t>(w >> (8 * byte));
    return sum;
  };
  const auto call = [](const char* word, const std::string& sum, uint32_t w, uint32_t a) { return cat(word, "(", sum, ", uintw(", w, "u + q.x - q.x), ", a, "u)"); };   // not a constant that a compiler folds
  for (const auto& [a, w] : kPairs) expect(call("add_dot4", "no_pairs()", w, a), dot(a, w));
  for (const uint32_t w : {0x80808080u, 0x7f7f7f7fu, 0xff80017fu})
    for (const uint32_t a : {0x81818181u, 0x7f7f7f7fu, 0x7f81ff01u}) expect(call("add_dot4_signed", "no_pairs()", w, a), dot(a, w));
  std::string eight = "no_pairs()";  // of 4 bits 8 fit
  for (int i = 0; i < 8; ++i) eight = call("add_dot4", eight, 0x0f0f0f0fu, 0x81818181u);
  expect(eight, 8 * 4 * 15 * -127);
  std::string missing;
  for (const DotForm form : {DotForm::kPlain, DotForm::kSignedSigned, DotForm::kSignedUnsigned, DotForm::kPairs}) {
    if (form == DotForm::kPairs ? width() != 8 : form != DotForm::kPlain && width() != 4) continue;  // no such form
    const auto got = values_of(expressions, {.vector_width = width(), .dot = form});
    // Vulkan's backend knows what it switched on; on OpenCL the device says that it has the dots, or its compiler knows no such function.
    const bool native = form == DotForm::kSignedSigned || form == DotForm::kSignedUnsigned;
    const bool absent = !got && native && (device->info().api == Api::kVulkan ? got.error().code() == ErrorCode::kUnsupported : !device->info().packed_dots);
    if (absent) missing = device->info().name + " has no packed dots";
    if (absent) continue;
    ASSERT_TRUE(got) << name_of(form) << ": " << got.error().message();
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ((*got)[i], expected[i]) << expressions[i] << " in form " << name_of(form);
  }
  if (!missing.empty()) GTEST_SKIP() << missing;
}

// Element `number` of a tensor, exact in this type.
float content_of(DType element, int64_t number) {
  const bool narrow = element == DType::kI8 || element == DType::kU8 || element == DType::kBF16;
  return static_cast<float>(element == DType::kI8 ? number % 256 - 128 : narrow ? number % 256 : 1 + number);
}

// One element of a host copy.
void put(std::vector<std::byte>& into, int64_t at, DType element, float value) {
  const uint16_t half = float_to_half(value), upper = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
  const auto byte = static_cast<uint8_t>(static_cast<int>(value));
  const void* bits = element == DType::kF32 ? static_cast<const void*>(&value) : element == DType::kF16 ? &half : element == DType::kBF16 ? &upper : nullptr;
  std::memcpy(into.data() + at, bits != nullptr ? bits : &byte, static_cast<size_t>(byte_size(element)));
}

// A tensor of some layout: its object on the device and what its host copy should hold.
struct Tensor {
  std::string name;
  Layout layout;
  std::vector<std::byte> packed;
  std::unique_ptr<Buffer> buffer;
  std::unique_ptr<Image> image;
  Binding binding() const { return {.buffer = buffer.get(), .offset = 0, .bytes = buffer != nullptr ? buffer->bytes() : 0, .image = image.get()}; }
};

constexpr int64_t kGrid[] = {4, 3, 2};

// The elements of a tensor of type `values` in the order of its texels (a, b, c), where this layout has them.
std::vector<std::byte> packed(const Layout& layout, DType values) {
  std::vector<std::byte> host(static_cast<size_t>(layout.object_bytes()));
  for (int64_t texel = 0; texel < layout.texels(); ++texel)
    for (int lane = 0; lane < layout.lanes; ++lane) {
      const int64_t at[] = {texel / (kGrid[1] * kGrid[2]), texel / kGrid[2] % kGrid[1], texel % kGrid[2]};
      put(host, host_byte_offset(layout, at) + lane * byte_size(layout.element), layout.element, content_of(values, texel * layout.lanes + lane));
    }
  return host;
}

// Every layout of texels of this width.
std::vector<Layout> layouts(int lanes) {
  std::vector<Layout> out;
  for (DType element : {DType::kF32, DType::kF16, DType::kBF16, DType::kI8, DType::kU8})
    for (size_t s = 0; s < kStorageRows.size(); ++s)
      for (int64_t fold : {0, 5, 6}) {  // of 12 rows: none, some left over in the last panel, all panels full
        const auto storage = static_cast<Storage>(s);
        if (fold != 0 && row_of(storage).form == StorageForm::kLine) continue;
        out.push_back(test::layout_of(storage, element, lanes, {kGrid[0], kGrid[1], kGrid[2]}));
        out.back().fold = fold;
      }
  return out;
}

// Every element type that an inout tensor may have: each lane doubles its own texel, three times over.
TEST_P(CodegenDevice, ATensorIsReadAndWrittenInPlace) {
  KernelVariant variant{"k", {}, {}, {width()}};
  variant.tensors = {{"f", test::buffer_of(DType::kF32, 4, {8})}, {"h", test::buffer_of(DType::kF16, 4, {8})}, {"n", test::buffer_of(DType::kI32, 1, {8})}};
  const auto program = lowered("tensor inout float4 f [i]; tensor inout float4 h [i]; tensor inout int n [i];\nkernel k(8, 1, 1) {\nconst int i = local_id(0);\n"
                               "for (int time = 0; time < 3; time++) {\nf.write(f.read(i) * 2.0f, i);\nh.write(h.read(i) * 2.0f, i);\nn.write(n.read(i) * 2, i);\n}\n}", variant);
  const std::vector<float> values = ramp(32);
  std::vector<uint16_t> halves;
  std::vector<int32_t> numbers;
  for (const float value : values) halves.push_back(float_to_half(value));
  for (int32_t i = 0; i < 8; ++i) numbers.push_back(i - 3);
  const auto f = filled(values), h = filled(halves), n = filled(numbers);
  dispatch(*program, {whole(*f), whole(*h), whole(*n)}, {1, 1, 1});
  EXPECT_TRUE(device->read(*h, 0, std::as_writable_bytes(std::span(halves))));
  EXPECT_TRUE(device->read(*n, 0, std::as_writable_bytes(std::span(numbers))));
  const auto found = floats(*f, 0, 32);
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(found[i], 8.0f * values[i]);
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(half_to_float(halves[i]), 8.0f * values[i]);
  for (int32_t i = 0; i < 8; ++i) EXPECT_EQ(numbers[static_cast<size_t>(i)], 8 * (i - 3));
}

class CodegenStorage : public CodegenDevice {
 protected:
  Tensor tensor(const std::string& name, const Layout& layout, const std::vector<std::byte>& content) {
    Tensor out{name, layout, packed(layout, layout.element), nullptr, nullptr};
    if (!is_image(layout.storage)) {
      out.buffer = filled(content);
      return out;
    }
    auto made = device->create_image(layout);
    EXPECT_TRUE(made) << made.error().message();
    out.image = std::move(*made);
    const Status written = device->write_rows(*out.image, 0, layout.lines(), content);
    EXPECT_TRUE(written) << written.error().message();
    return out;
  }
  std::vector<std::byte> content(const Tensor& of) {
    std::vector<std::byte> host(of.packed.size());
    const Status read = of.image != nullptr ? device->read_rows(*of.image, 0, of.layout.lines(), host) : device->read(*of.buffer, 0, host);
    EXPECT_TRUE(read) << read.error().message();
    return host;
  }
  // Copies each of `from` into its partner in `to`, a few with every kernel: devices bind 16 and more buffers.
  void copy(std::span<const Tensor> from, std::span<const Tensor> to) {
    constexpr size_t kAtOnce = 8;
    for (size_t i = 0; i < from.size(); i += kAtOnce) copy_some(from.subspan(i, std::min(kAtOnce, from.size() - i)), to.subspan(i));
  }
  // One kernel that copies texel by texel, each named by its coordinates.
  void copy_some(std::span<const Tensor> from, std::span<const Tensor> to) {
    std::string header, body;
    KernelVariant variant{"k", {}, {}, {width()}};
    std::vector<Binding> bindings;
    for (size_t i = 0; i < from.size(); ++i) {
      const DType element = from[i].layout.element;  // only floatw has the narrow ones in every storage
      const std::string texel = width() == 4 && (element == DType::kF32 || element == DType::kF16) ? "float4" : "floatw";
      header += cat("tensor in ", texel, " ", from[i].name, " [a, b, c];\ntensor out ", texel, " ", to[i].name, " [a, b, c];\n");
      body += cat(to[i].name, ".write(", from[i].name, ".read(a, b, c), a, b, c);\n");
      variant.tensors[from[i].name] = from[i].layout;
      variant.tensors[to[i].name] = to[i].layout;
      bindings.push_back(from[i].binding());
      bindings.push_back(to[i].binding());
    }
    const auto program = lowered(
        cat(header, "kernel k(1, 1, 1) {\nconst int a = group_id(0); const int b = group_id(1); const int c = group_id(2);\n", body, "}"), variant);
    dispatch(*program, std::move(bindings), {kGrid[0], kGrid[1], kGrid[2]});
  }
};

TEST_P(CodegenStorage, KernelsFindEveryTexelWhereTheHostPutIt) {
  std::vector<Tensor> placed, linear, back;
  for (const Layout& layout : layouts(width())) {
    const std::string name = cat(name_of(layout.storage), "_", name_of(layout.element), "_fold", layout.fold);
    const Layout plain = test::buffer_of(DType::kF32, layout.lanes, layout.grid);
    placed.push_back(tensor(name, layout, packed(layout, layout.element)));
    linear.push_back(tensor("linear_" + name, plain, std::vector<std::byte>(static_cast<size_t>(plain.object_bytes()))));
    linear.back().packed = packed(plain, layout.element);
    const bool written = layout.element == DType::kF32 || layout.element == DType::kF16;
    back.push_back(tensor("back_" + name, written ? layout : plain, std::vector<std::byte>(static_cast<size_t>((written ? layout : plain).object_bytes()))));
    back.back().packed = packed(back.back().layout, layout.element);
  }
  copy(placed, linear);
  for (const Tensor& each : linear) EXPECT_TRUE(content(each) == each.packed) << each.name;
  copy(linear, back);
  for (const Tensor& each : back) EXPECT_TRUE(content(each) == each.packed) << each.name;
}

INSTANTIATE_TEST_SUITE_P(Lanes, CodegenDevice, testing::ValuesIn(widths()), width_name);
INSTANTIATE_TEST_SUITE_P(Lanes, CodegenStorage, testing::ValuesIn(widths()), width_name);

}  // namespace
}  // namespace tessera::gpu
