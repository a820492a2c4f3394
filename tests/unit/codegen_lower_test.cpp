// Lowering as text: what goes in, what comes out, one construct each, for both targets.
#include <gtest/gtest.h>

#include <string>

#include "kernel_texts.hpp"

namespace tessera {
namespace {

using test::buffer_of;
using test::KernelTexts;
using test::layout_of;

constexpr const char* kHeader = "tensor in float4 x [row, slice]; tensor out float4 y [row, slice]; tensor in int ids [i];\n";

KernelVariant plain_variant() {
  return {
      "k", {}, {{"x", buffer_of(DType::kF32, 4, {4, 16})}, {"y", buffer_of(DType::kF32, 4, {4, 16})}, {"ids", buffer_of(DType::kI32, 1, {9})}}, {}};
}

// The body of a kernel with these statements, one line each, as lowered for both targets.
std::string body(const std::string& statements, Target target, const KernelVariant& variant = plain_variant(), const std::string& header = kHeader) {
  const Result<LoweredKernel> kernel =
      lower(KernelTexts{{"k", header + "kernel k(8, 1, 1) {\n" + statements + "\n}\n"}}, variant, target, {"position", "tokens"});
  return kernel ? test::body_of(*kernel) : kernel.error().message();
}

TEST(CodegenLower, AWholeKernel) {
  const std::string text = R"(// y = x * scale + bias
tensor in  float4 x    [row, slice];
tensor in  float4 bias [slice] if BIAS;
tensor out float4 y    [row, slice];
const int  SLICES;
const bool BIAS;
arg   float scale;
arg   int   first;
param int   tokens;
shared float4 cache[SLICES * 2];
kernel scaled(SLICES, 2, 1) {
  const int row = group_id(1) + first;
  const int s = local_id(0);
  if (row < tokens) {
    cache[s] = x.read<float>(row, s);
    static if (BIAS) {
      cache[s] += bias.read<float>(s);
    }
    y.write(cache[s] * scale, row, s);
  }
}
)";
  KernelVariant variant{"scaled",
                        {{"SLICES", 16}, {"BIAS", 0}},
                        {{"x", buffer_of(DType::kF16, 4, {4, 16})}, {"y", layout_of(Storage::kImage2D, DType::kF32, 4, {4, 16})}},
                        {}};
  const KernelTexts library{{"scaled", text}};
  const Result<LoweredKernel> opencl = lower(library, variant, Target::kOpenCL, {"position", "tokens"});
  ASSERT_TRUE(opencl.has_value()) << opencl.error().message();
  EXPECT_EQ(opencl->text, R"(__kernel __attribute__((reqd_work_group_size(16, 2, 1)))
void scaled(__global const half* restrict x, __write_only image2d_t y, __global const int* restrict params, const float scale, const int first) {
  __local float4 cache_[32];
  const int tokens = params[1];
#line 12 "scaled.kernel"
  const int row = (int)get_group_id(1) + first;
  const int s = (int)get_local_id(0);
  if (row < tokens) {
    cache_[s] = vload_half4((row * 16) + s, x);



    write_imagef(y, (int2)(s, row), cache_[s] * scale);
  }
}
)");
  EXPECT_EQ(opencl->entry, "scaled");
  EXPECT_EQ(opencl->workgroup, (std::array<int, 3>{16, 2, 1}));
  EXPECT_EQ(opencl->slots,
            (std::vector<KernelSlot>{{"x", Storage::kBuffer, false}, {"y", Storage::kImage2D, true}, {"params", Storage::kBuffer, false}}));
  EXPECT_EQ(opencl->args, (std::vector<KernelArg>{{"scale", ArgType::kFloat}, {"first", ArgType::kInt}}));

  variant.consts["BIAS"] = 1;
  variant.tensors["bias"] = layout_of(Storage::kImage2D, DType::kF16, 4, {16});
  const Result<LoweredKernel> glsl = lower(library, variant, Target::kGlsl, {"position", "tokens"});
  ASSERT_TRUE(glsl.has_value()) << glsl.error().message();
  EXPECT_EQ(glsl->text, R"(#version 450
#extension GL_GOOGLE_cpp_style_line_directive : require
#extension GL_EXT_samplerless_texture_functions : require
layout(local_size_x = 16, local_size_y = 2, local_size_z = 1) in;
layout(set = 0, binding = 0, std430) readonly restrict buffer x_block_ { uvec2 x[]; };
layout(set = 0, binding = 1) uniform texture2D bias;
layout(set = 0, binding = 2, rgba32f) writeonly uniform image2D y;
layout(set = 0, binding = 3, std430) readonly restrict buffer params_block_ { int params[]; };
layout(push_constant) uniform args_block_ { float scale; int first; };
shared vec4 cache_[32];
vec4 load_half4_(uvec2 q) { return vec4(unpackHalf2x16(q.x), unpackHalf2x16(q.y)); }
void main() {
  const int tokens = params[1];
#line 12 "scaled.kernel"
  const int row = int(gl_WorkGroupID.y) + first;
  const int s = int(gl_LocalInvocationID.x);
  if (row < tokens) {
    cache_[s] = load_half4_(x[(row * 16) + s]);

    cache_[s] += texelFetch(bias, ivec2(s, 0), 0);

    imageStore(y, ivec2(s, row), cache_[s] * scale);
  }
}
)");
  EXPECT_NE(glsl->text.find("void main()"), std::string::npos);
  EXPECT_EQ(glsl->slots.size(), 4u);
  EXPECT_EQ(lower(library, variant, Target::kGlsl, {"position", "tokens"})->text, glsl->text);
}

TEST(CodegenLower, TheOutermostExtentIsNotInTheText) {
  KernelVariant longer = plain_variant();
  longer.tensors["x"].grid[0] = longer.tensors["y"].grid[0] = 4096;
  const std::string statement = "y.write(x.read(3, 2), local_id(0), 0);";
  EXPECT_EQ(body(statement, Target::kOpenCL, longer), body(statement, Target::kOpenCL));
}

TEST(CodegenLower, ReadsAndWritesFoldTheirAddresses) {
  EXPECT_EQ(body("y.write(x.read(1, 2) + x.read<float>(ids.read(0), local_id(0)), 0, 1 + 2);", Target::kOpenCL),
            "  y[3] = x[18] + x[(ids[0] * 16) + (int)get_local_id(0)];\n");
  EXPECT_EQ(body("y.write(x.read(1, 2) + x.read<float>(ids.read(0), local_id(0)), 0, 1 + 2);", Target::kGlsl),
            "  y[3] = x[18] + x[(ids[0] * 16) + int(gl_LocalInvocationID.x)];\n");
}

// One binding, which either side may use: nothing tells the compiler that it is constant, or that it alone leads to its memory.
TEST(CodegenLower, ATensorThatIsReadAndWritten) {
  const std::string text = "tensor inout float4 y [i]; tensor inout uint2 n [i];\nkernel k(1, 1, 1) {\n  y.write(y.read<float>(1) * 2.0f, 1);\n  n.write(n.read(0), 2);\n}";
  const auto lowered = [&](DType element, Target target) {
    return lower(KernelTexts{{"k", text}}, {"k", {}, {{"y", buffer_of(element, 4, {8})}, {"n", buffer_of(DType::kU32, 2, {8})}}, {}}, target, {});
  };
  const auto opencl = lowered(DType::kF32, Target::kOpenCL), glsl = lowered(DType::kF32, Target::kGlsl);
  ASSERT_TRUE(opencl && glsl);
  EXPECT_NE(opencl->text.find("void k(__global float4* y, __global uint2* n) {\n"), std::string::npos) << opencl->text;
  EXPECT_EQ(test::body_of(*opencl), "  y[1] = y[1] * 2.0f;\n  n[2] = n[0];\n");
  EXPECT_NE(glsl->text.find("layout(set = 0, binding = 0, std430) buffer y_block_ { vec4 y[]; };\n"
                            "layout(set = 0, binding = 1, std430) buffer n_block_ { uvec2 n[]; };\n"), std::string::npos) << glsl->text;
  EXPECT_EQ(test::body_of(*glsl), "  y[1] = y[1] * 2.0f;\n  n[2] = n[0];\n");
  EXPECT_EQ(opencl->slots, (std::vector<KernelSlot>{{"y", Storage::kBuffer, true}, {"n", Storage::kBuffer, true}}));
  const auto halves = lowered(DType::kF16, Target::kGlsl);   // both helpers
  ASSERT_TRUE(halves);
  EXPECT_EQ(test::body_of(*halves), "  y[1] = store_half4_(load_half4_(y[1]) * 2.0f);\n  n[2] = n[0];\n");
  EXPECT_NE(halves->text.find("vec4 load_half4_(uvec2 q)"), std::string::npos);
  EXPECT_NE(halves->text.find("uvec2 store_half4_(vec4 v)"), std::string::npos);
}

// A hint: where a CPU reads, by its address; nothing where lanes hide each other's waiting.
TEST(CodegenLower, APrefetchIsAnAddressOrNothing) {
  const std::string prefetch = "x.prefetch(1, 2);";
  EXPECT_EQ(body(prefetch, Target::kOpenCL), "  prefetch_(x + (18));\n");
  EXPECT_EQ(body(prefetch, Target::kGlsl), "  ;\n");
  KernelVariant halves = plain_variant();
  halves.tensors["x"] = buffer_of(DType::kF16, 4, {4, 16});
  EXPECT_EQ(body(prefetch, Target::kOpenCL, halves), "  prefetch_(x + (18) * 4);\n") << "elements, not texels";
  halves.tensors["x"] = layout_of(Storage::kImage2D, DType::kF32, 4, {4, 16});
  EXPECT_EQ(body(prefetch, Target::kOpenCL, halves), "  ;\n");
}

TEST(CodegenLower, AFoldedImage) {
  KernelVariant variant = plain_variant();
  variant.tensors["x"] = layout_of(Storage::kImage2D, DType::kF32, 4, {100, 16});
  variant.tensors["x"].fold = 64;
  EXPECT_EQ(body("const int r = local_id(0);\ny.write(x.read(r, 5), 0, 0);", Target::kGlsl, variant),
            "  const int r = int(gl_LocalInvocationID.x);\n  y[0] = texelFetch(x, ivec2(((r >> 6) * 16) + 5, r & 63), 0);\n");
}

TEST(CodegenLower, WideTexelsInImagesAreNeighbouringPixels) {
  KernelVariant variant{
      "k", {}, {{"x", layout_of(Storage::kImage2D, DType::kF16, 8, {4, 3})}, {"y", layout_of(Storage::kImageBuffer, DType::kF32, 8, {4, 3})}}, {8}};
  EXPECT_EQ(body("const int i = 2;\ny.write(x.read(1, i), 0, local_id(0));", Target::kOpenCL, variant,
                 "tensor in floatw x [r, s]; tensor out floatw y [r, s];"),
            "  const int i = 2;\n"
            "  { const float8 texel_ = (float8)(read_imagef(x, nearest_, (int2)(4, 1)), read_imagef(x, nearest_, (int2)(5, 1))); "
            "write_imagef(y, (int)get_local_id(0) * 2, texel_.s0123); write_imagef(y, ((int)get_local_id(0) * 2) + 1, texel_.s4567); }\n");
}

TEST(CodegenLower, OneReadForEachElementType) {
  const std::string header = "tensor in float4 x [i]; tensor out float y [i];";
  const std::string statement = "y.write(dot(x.read(1), x.read(2)), 0);";
  struct Row {
    DType x, y;
    std::string opencl, glsl;
  };
  const Row rows[] = {{DType::kF32, DType::kF32, "  y[0] = dot(x[1], x[2]);\n", "  y[0] = dot(x[1], x[2]);\n"},
                      {DType::kF16, DType::kF16, "  vstore_half(dot(vload_half4(1, x), vload_half4(2, x)), 0, y);\n",
                       "  y[0] = float16_t(round_half_(dot(load_half4_(x[1]), load_half4_(x[2]))));\n"},
                      {DType::kI8, DType::kF32, "  y[0] = dot(convert_float4(vload4(1, x)), convert_float4(vload4(2, x)));\n",
                       "  y[0] = dot(unpack_i8_(x[1]), unpack_i8_(x[2]));\n"}};
  for (const Row& row : rows) {
    const KernelVariant variant{"k", {}, {{"x", buffer_of(row.x, 4, {9})}, {"y", buffer_of(row.y, 1, {9})}}, {}};
    EXPECT_EQ(body(statement, Target::kOpenCL, variant, header), row.opencl);
    EXPECT_EQ(body(statement, Target::kGlsl, variant, header), row.glsl);
  }
}

TEST(CodegenLower, CalcIsHalfWhereTheDeviceRowSaysSo) {
  const std::string statements = "calc4 c = x.read<calc>(0, 1) * calc(2.0f);\ny.write(to_float4(c), 0, 0);";
  EXPECT_EQ(body(statements, Target::kOpenCL), "  float4 c = x[1] * (float)(2.0f);\n  y[0] = convert_float4(c);\n");
  KernelVariant half = plain_variant();
  half.words.half_calc = true;
  EXPECT_EQ(body(statements, Target::kOpenCL, half), "  half4 c = convert_half4(x[1]) * (half)(2.0f);\n  y[0] = convert_float4(c);\n");
  EXPECT_EQ(body(statements, Target::kGlsl, half), "  f16vec4 c = f16vec4(x[1]) * float16_t(2.0f);\n  y[0] = vec4(c);\n");
}

TEST(CodegenLower, StaticIfLeavesTheChosenBranchAndTheLineCount) {
  const std::string statements =
      "static if (W == 8) {\n  const int a = 1;\n} else static if (W == 4 && !SUBGROUPS) {\n  const int a = 2;\n} else {\n  const int a = "
      "3;\n}\ny.write(x.read(0, a), 0, a);";
  EXPECT_EQ(body(statements, Target::kGlsl), "  const int a = 2;\n\n\n\n  y[2] = x[2];\n");
}

TEST(CodegenLower, LoopsAndTheirHints) {
  const std::string statements =
      "int n = 0;\nunroll for (int i = 0; i < 4; i++) n += i;\nrolled for (int i = 4; i > 0; i -= 2) {\n  n++;\n}\nwhile (n > 0) n /= 2;";
  EXPECT_EQ(body(statements, Target::kOpenCL),
            "  int n = 0;\n  _Pragma(\"unroll\") for (int i = 0; i < 4; i++) n += i;\n  _Pragma(\"nounroll\") for (int i = 4; i > 0; i -= 2) {\n    "
            "n++;\n  }\n  while (n > 0) n /= 2;\n");
  EXPECT_EQ(body(statements, Target::kGlsl),
            "  int n = 0;\n  [[unroll]] for (int i = 0; i < 4; i++) n += i;\n  [[dont_unroll]] for (int i = 4; i > 0; i -= 2) {\n    n++;\n  }\n  "
            "while (n > 0) n /= 2;\n");
}

TEST(CodegenLower, ABodyOnTheNextLineIsIndented) {
  EXPECT_EQ(body("int n = 0;\nif (n < 1)\n  n = 2;\nelse\n  n = 3;\nn = 4;", Target::kGlsl),
            "  int n = 0;\n  if (n < 1)\n    n = 2;\n  else\n    n = 3;\n  n = 4;\n");
}

TEST(CodegenLower, VectorsAreBuiltConvertedAndTakenApart) {
  EXPECT_EQ(body("const float4 v = float4(1.0f, 2.0f, 3.0f, 4.0f);\nconst int4 i = to_int4(v * 2.0f);\nconst float s = v.x + float(i.w);\nconst "
                 "float2 p = float4(s).xy;",
                 Target::kOpenCL),
            "  const float4 v = (float4)(1.0f, 2.0f, 3.0f, 4.0f);\n  const int4 i = convert_int4(v * 2.0f);\n  const float s = v.x + (float)(i.w);\n "
            " const float2 p = ((float4)(s)).xy;\n");
  EXPECT_EQ(body("const float4 v = float4(1.0f, 2.0f, 3.0f, 4.0f);\nconst int4 i = to_int4(v * 2.0f);\nconst float s = v.x + float(i.w);\nconst "
                 "float2 p = float4(s).xy;",
                 Target::kGlsl),
            "  const vec4 v = vec4(1.0f, 2.0f, 3.0f, 4.0f);\n  const ivec4 i = ivec4(v * 2.0f);\n  const float s = v.x + float(i.w);\n  const vec2 p "
            "= vec4(s).xy;\n");
}

// A member .x after a vector is not the tensor x.
TEST(CodegenLower, AMemberIsNotATensorOfTheSameName) {
  EXPECT_EQ(body("const float4 v = x.read(0, 0);\nconst float s = v.x * v.y;", Target::kGlsl),
            "  const vec4 v = x[0];\n  const float s = v.x * v.y;\n");
}

TEST(CodegenLower, NamesOfWordsThatNoTargetHasAreFree) {
  EXPECT_EQ(body("const int lane = local_id(0);", Target::kOpenCL), "  const int lane = (int)get_local_id(0);\n");
}

TEST(CodegenLower, ParenthesesKeepSignsApart) {
  EXPECT_EQ(body("const int a = -(-3);\nconst int b = - -a;", Target::kGlsl), "  const int a = -(-3);\n  const int b = -(-a);\n");
}

TEST(CodegenLower, ConstsAreMacrosAndOnlyThoseInTheText) {
  const KernelVariant variant{"k", {{"N", -3}, {"FAST", 1}, {"UNSEEN", 5}}, {{"y", buffer_of(DType::kF32, 1, {8})}}, {}};
  const std::string text =
      "tensor out float y [i];\nconst int N;\nconst bool FAST;\nconst int UNSEEN;\nkernel k(UNSEEN + 3, 1, 1) {\n  if (FAST) y.write(float(N), "
      "0);\n}";
  const Result<LoweredKernel> kernel = lower(KernelTexts{{"k", text}}, variant, Target::kGlsl, {});
  ASSERT_TRUE(kernel.has_value()) << kernel.error().message();
  EXPECT_NE(kernel->text.find("#define N (-3)\n#define FAST true\n"), std::string::npos) << kernel->text;
  EXPECT_EQ(kernel->text.find("UNSEEN"), std::string::npos) << kernel->text;
  EXPECT_EQ(kernel->workgroup[0], 8);
}

TEST(CodegenLower, AFunctionOnceForEachTypeAndSharedArray) {
  const std::string library =
      "fn T first_of(T v, shared T m[]) {\n  m[0] = v;\n  workgroup_barrier();\n  return m[m.length - 1];\n}\nfn float half_of(float v) { return v * "
      "0.5f; }\n";
  const std::string text =
      "use lib/first;\ntensor out float4 y [i];\nshared float a[4];\nshared float4 b[2];\nshared float4 c[2];\nkernel k(1, 1, 1) {\n"
      "  const float s = half_of(first_of(1.0f, a)) + first_of(2.0f, a);\n  y.write(first_of(float4(s), b) + first_of(float4(s), c), 0);\n}";
  const KernelVariant variant{"k", {}, {{"y", buffer_of(DType::kF32, 4, {8})}}, {}};
  const KernelTexts files{{"k", text}, {"lib/first", library}};
  const Result<LoweredKernel> opencl = lower(files, variant, Target::kOpenCL, {});
  ASSERT_TRUE(opencl.has_value()) << opencl.error().message();
  EXPECT_EQ(opencl->text, R"(__attribute__((always_inline)) float first_of_float_a_(float v, __local float* a_) {
#line 2 "lib/first.kernel"
  a_[0] = v;
  barrier(CLK_LOCAL_MEM_FENCE);
  return a_[4 - 1];
}
__attribute__((always_inline)) float half_of(float v) {
#line 6 "lib/first.kernel"
  return v * 0.5f;
}
__attribute__((always_inline)) float4 first_of_float4_b_(float4 v, __local float4* b_) {
#line 2 "lib/first.kernel"
  b_[0] = v;
  barrier(CLK_LOCAL_MEM_FENCE);
  return b_[2 - 1];
}
__attribute__((always_inline)) float4 first_of_float4_c_(float4 v, __local float4* c_) {
#line 2 "lib/first.kernel"
  c_[0] = v;
  barrier(CLK_LOCAL_MEM_FENCE);
  return c_[2 - 1];
}
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void k(__global float4* y) {
  __local float a_[4];
  __local float4 b_[2];
  __local float4 c_[2];
#line 7 "k.kernel"
  const float s = half_of(first_of_float_a_(1.0f, a_)) + first_of_float_a_(2.0f, a_);
  y[0] = first_of_float4_b_((float4)(s), b_) + first_of_float4_c_((float4)(s), c_);
}
)");
  const Result<LoweredKernel> glsl = lower(files, variant, Target::kGlsl, {});
  ASSERT_TRUE(glsl.has_value());
  EXPECT_NE(glsl->text.find("vec4 first_of_float4_c_(vec4 v) {\n#line 2 \"lib/first.kernel\"\n  c_[0] = v;\n"), std::string::npos) << glsl->text;
}

TEST(CodegenLower, TensorsAndConstsOfALibraryFileAreTheKernels) {
  const std::string library =
      "tensor in float4 table [i] if SIZE > 1;\nconst int SIZE;\nconst int STEP;\nfn float first(const float v[SIZE]) { return v[0]; }\n";
  const std::string text = "use lib/table;\ntensor out float4 y [i];\nkernel k(1, 1, 1) {\n  float a[SIZE];\n  a[0] = table.read(STEP).x;\n"
                           "  y.write(float4(first(a)), 0);\n}";
  const KernelTexts files{{"k", text}, {"lib/table", library}};
  KernelVariant variant{"k", {{"SIZE", 2}, {"STEP", 3}}, {{"y", buffer_of(DType::kF32, 4, {8})}, {"table", buffer_of(DType::kF32, 4, {8})}}, {}};
  const Result<LoweredKernel> kernel = lower(files, variant, Target::kOpenCL, {});
  ASSERT_TRUE(kernel.has_value()) << kernel.error().message();
  EXPECT_NE(kernel->text.find("  float a[2];\n  a[0] = (table[3]).x;\n"), std::string::npos) << kernel->text;
  EXPECT_EQ(kernel->slots, (std::vector<KernelSlot>{{"y", Storage::kBuffer, true}, {"table", Storage::kBuffer, false}}));
  variant.tensors.erase("table");
  const Result<LoweredKernel> missing = lower(files, variant, Target::kOpenCL, {});
  ASSERT_FALSE(missing.has_value());
  EXPECT_NE(missing.error().message().find("lib/table.kernel:1: the variant gives no layout for tensor 'table'"), std::string::npos) << missing.error().message();
}

TEST(CodegenLower, AnArrayParameterIsAPointerOrAValue) {
  const std::string text =
      "tensor out float y [i];\nconst int N;\nfn float sum_of(const float v[N], float w) {\n  float s = 0.0f;\n  for (int i = 0; i < N; i++) s += "
      "v[i] * w;\n  return s;\n}\n"
      "kernel k(1, 1, 1) {\n  float a[N];\n  a[0] = 1.0f;\n  y.write(sum_of(a, 2.0f), 0);\n}";
  const KernelVariant variant{"k", {{"N", 2}}, {{"y", buffer_of(DType::kF32, 1, {8})}}, {}};
  EXPECT_NE(lower(KernelTexts{{"k", text}}, variant, Target::kOpenCL, {})->text.find("float sum_of(const float* v, float w) {\n#line 4"),
            std::string::npos);
  EXPECT_NE(lower(KernelTexts{{"k", text}}, variant, Target::kGlsl, {})->text.find("float sum_of(const float v[2], float w) {\n#line 4"),
            std::string::npos);
}

TEST(CodegenLower, ThePackedDotIsSpelledAsTheDeviceRowSays) {
  const std::string statement = "const intw d = sum_pairs(add_dot4(no_pairs(), uintw(1u), 2u));\ny.write(float4(lane(to_floatw(d), 0)), 0, 0);";
  const auto text = [&](Target target, DotForm form) {
    KernelVariant variant = plain_variant();
    variant.words.dot = form;
    return lower(KernelTexts{{"k", kHeader + std::string("kernel k(8, 1, 1) {\n") + statement + "\n}\n"}}, variant, target, {})->text;
  };
  EXPECT_NE(text(Target::kOpenCL, DotForm::kPlain).find("& 255u) * b.x"), std::string::npos);
  EXPECT_EQ(text(Target::kOpenCL, DotForm::kPlain).find("#pragma"), std::string::npos);
  EXPECT_NE(text(Target::kOpenCL, DotForm::kSignedSigned).find("dot_4x8packed_ss_int"), std::string::npos);
  EXPECT_NE(text(Target::kOpenCL, DotForm::kSignedUnsigned).find("#pragma OPENCL EXTENSION cl_khr_integer_dot_product : enable"), std::string::npos);
  EXPECT_NE(text(Target::kGlsl, DotForm::kSignedSigned).find("id = 4450"), std::string::npos);
  EXPECT_NE(text(Target::kGlsl, DotForm::kSignedUnsigned).find("id = 4452"), std::string::npos);
}

// GLSL keeps names with two underscores for itself.
TEST(CodegenLower, NoGeneratedNameHasTwoUnderscores) {
  const std::string calls = "float s = max_abs(x.read(0, 0)) + lane(floatw(1.0f), 1) + float(pack_i8(x.read(0, 0)));\n";
  const std::string text = std::string(kHeader) + "shared float m[8];\nfn T kept(T v, shared T m[]) { return v + m[0]; }\nkernel k(8, 1, 1) {\n" +
                           calls + "s += kept(s, m);\n}\n";
  const Result<LoweredKernel> kernel = lower(KernelTexts{{"k", text}}, plain_variant(), Target::kGlsl, {});
  ASSERT_TRUE(kernel.has_value()) << kernel.error().message();
  EXPECT_EQ(kernel->text.find("__"), std::string::npos) << kernel->text;
}

}  // namespace
}  // namespace tessera
