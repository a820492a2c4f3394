// What lowering refuses, and what it says: the file, the line, what is wrong.
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "kernel_texts.hpp"

namespace tessera {
namespace {

using test::buffer_of;
using test::KernelTexts;

// Lines 1–7; the statements of a case begin on line 8.
constexpr const char* kHead = R"(tensor in  float4 x     [row, slice];
tensor in  float4 gamma [slice] if NORM;
tensor out float4 y     [row, slice];
const  int  N;   const bool NORM;   param int tokens;   arg float eps;
shared float part[8];
fn float twice(float v, const float w[2]) { return v * w[0]; }   fn T summed(T v, shared T m[]) { return v + m[0]; }
kernel k(8, 1, 1) { const int lane = local_id(0);   float f = 1.0f;   float4 v = x.read<float>(0, lane);   float two[2];
)";

KernelVariant variant() {
  return {"k", {{"N", 4}, {"NORM", 0}}, {{"x", buffer_of(DType::kF32, 4, {4, 16})}, {"y", buffer_of(DType::kF32, 4, {4, 16})}}, {}};
}

std::string error_of(const std::string& text, const KernelVariant& of = variant(), std::vector<std::string> params = {"tokens"}) {
  const KernelTexts library{{"k", text}, {"lib/broken", "fn float odd(float v) {\n  return w;\n}\n"}};
  const Result<LoweredKernel> opencl = lower(library, of, Target::kOpenCL, params);
  const Result<LoweredKernel> glsl = lower(library, of, Target::kGlsl, params);
  if (opencl.has_value() != glsl.has_value() || (!opencl && opencl.error().message() != glsl.error().message())) return "the targets disagree";
  return opencl ? "" : opencl.error().message();
}

struct Case {
  std::string text;
  std::string message;
};

TEST(CodegenErrors, TheHeadOfTheCasesIsFine) { EXPECT_EQ(error_of(std::string(kHead) + "}\n"), ""); }

class StatementError : public testing::TestWithParam<Case> {};

TEST_P(StatementError, NamesFileLineAndReason) { EXPECT_EQ(error_of(kHead + GetParam().text + "\n}\n"), GetParam().message); }

INSTANTIATE_TEST_SUITE_P(
    Types, StatementError,
    testing::Values(
        Case{"float a = 1;", "k.kernel:8: 'a' is float, the value int; nothing converts by itself: write float(…)"},
        Case{"\nconst float a = lane;", "k.kernel:9: 'a' is float, the value int; nothing converts by itself: write float(…)"},
        Case{"int a = 1.0f;", "k.kernel:8: 'a' is int, the value float; nothing converts by itself: write int(…)"},
        Case{"int a = 1u;", "k.kernel:8: 'a' is int, the value uint; nothing converts by itself: write int(…)"},
        Case{"f = lane;", "k.kernel:8: 'f' is float, the value int; nothing converts by itself: write float(…)"},
        Case{"f += lane;", "k.kernel:8: '+=' does not take float and int; nothing converts by itself"},
        Case{"f = f * 2;", "k.kernel:8: '*' does not take float and int; nothing converts by itself"},
        Case{"v = f;", "k.kernel:8: 'v' is float4, the value float"}, Case{"floatw w = v;", "k.kernel:8: 'w' is floatw, the value float4"},
        Case{"calc c = f;", "k.kernel:8: 'c' is calc, the value float; nothing converts by itself: write calc(…)"},
        Case{"float a = 1.0;", "k.kernel:8: '1.0' would be a double in OpenCL C: write 1.0f"},
        Case{"uint a = 4000000000;", "k.kernel:8: '4000000000' does not fit an int: write 4000000000u"},
        Case{"float a = 1e999f;", "k.kernel:8: '1e999f' is not a number"}, Case{"float a = 1.5ef;", "k.kernel:8: '1.5ef' is not a number"},
        Case{"int a = 012;", "k.kernel:8: '012' is not a number of 32 bits"}, Case{"int a = 0x1g;", "k.kernel:8: '0x1g' is not a number of 32 bits"},
        Case{"if (lane) f = 2.0f;", "k.kernel:8: the condition of 'if' is a comparison, not int"},
        Case{"if (lane && f > 0.0f) f = 2.0f;", "k.kernel:8: '&&' does not take int and bool"},
        Case{"while (lane) f = 2.0f;", "k.kernel:8: the condition of 'while' is a comparison, not int"},
        Case{"for (int i = 0; i; i++) f = 2.0f;", "k.kernel:8: the condition of 'for' is a comparison, not int"},
        Case{"f = lane ? 1.0f : 2.0f;", "k.kernel:8: the condition before '?' is a comparison, not int"},
        Case{"f = lane > 0 ? 1.0f : 2;", "k.kernel:8: the two values of '?' are float and int"},
        Case{"v = float4(lane);", "k.kernel:8: float4(…) does not take int: it takes scalars of type float; to_float4(…) converts a vector"},
        Case{"v = float4(f, f);", "k.kernel:8: float4(…) does not take float, float: it takes scalars of type float; to_float4(…) converts a vector"},
        Case{"f = float(v);", "k.kernel:8: float(…) does not take float4"},
        Case{"v = to_float4(f);", "k.kernel:8: to_float4(…) does not take float: it converts a vector of as many lanes"},
        Case{"f = v[0];", "k.kernel:8: only arrays are indexed; the components of a vector are .x .y .z .w"},
        Case{"f = floatw(1.0f).x;", "k.kernel:8: floatw has no component '.x'; lane(v, i) gives one"},
        Case{"f = v.xy.z;", "k.kernel:8: float2 has no component '.z'"}, Case{"f = f.x;", "k.kernel:8: float has no component '.x'"},
        Case{"f = max(f, 1);", "k.kernel:8: 'max' does not take float, int"}, Case{"f = dot(v, f);", "k.kernel:8: 'dot' does not take float4, float"},
        Case{"const int g = group_id(lane);", "k.kernel:8: 'group_id' does not take int"},
        Case{"const int g = group_id(3);", "k.kernel:8: 'group_id' does not take int"}));

INSTANTIATE_TEST_SUITE_P(
    Tensors, StatementError,
    testing::Values(Case{"v = x.read(0);", "k.kernel:8: 'x' has 2 axes [row, slice], 1 coordinates were given"},
                    Case{"y.write(v, 0, 1, 2);", "k.kernel:8: 'y' has 2 axes [row, slice], 3 coordinates were given"},
                    Case{"v = x.read(f, 0);", "k.kernel:8: coordinate 1 of 'x' is int, the value float; nothing converts by itself: write int(…)"},
                    Case{"v = x.load(0, 1);", "k.kernel:8: a tensor has no '.load': it has .read(…), .read<TYPE>(…), .write(value, …) and .prefetch(…)"},
                    Case{"y.prefetch(0, 1);", "k.kernel:8: 'y' is 'out': it is written, not read"},
                    Case{"v = x.prefetch(0, 1);", "k.kernel:8: 'x.prefetch' is a statement of its own"},
                    Case{"v = x.read<int>(0, 1);", "k.kernel:8: 'x' has texels of float4; it cannot be read as 'int'"},
                    Case{"v = y.read(0, 1);", "k.kernel:8: 'y' is 'out': it is written, not read"},
                    Case{"x.write(v, 0, 1);", "k.kernel:8: 'x' is 'in': it is read, not written"},
                    Case{"y.write(f, 0, 1);", "k.kernel:8: what 'y' holds is float4, the value float"},
                    Case{"v = v + y.write(v, 0, 1);", "k.kernel:8: 'y.write' is a statement of its own"},
                    Case{"v = x;", "k.kernel:8: 'x' is a tensor: read it with .read(…)"},
                    Case{"v *= gamma.read(lane);",
                         "k.kernel:8: 'gamma' is not there in this variant (the condition on line 2 is false): use it inside a static if only"}));

INSTANTIATE_TEST_SUITE_P(
    Names, StatementError,
    testing::Values(
        Case{"f = g;", "k.kernel:8: 'g' is not declared"}, Case{"f = sine(f);", "k.kernel:8: 'sine' is not a function or a word of the dialect"},
        Case{"double d = f;", "k.kernel:8: 'double' is not a type"}, Case{"int x = 1;", "k.kernel:8: 'x' is already a tensor of the kernel"},
        Case{"int N = 1;", "k.kernel:8: 'N' is already a const of the kernel"},
        Case{"int a = 1;\nfloat a = 1.0f;", "k.kernel:9: 'a' is already declared on line 8"},
        Case{"int twice = 1;", "k.kernel:8: 'twice' is a function; choose another name"},
        Case{"int sample = 1;", "k.kernel:8: 'sample' is a word of the dialect or of a target language; choose another name"},
        Case{"int max = 1;", "k.kernel:8: 'max' is a word of the dialect or of a target language; choose another name"},
        Case{"int vec3 = 1;", "k.kernel:8: 'vec3' is a word of the dialect or of a target language; choose another name"},
        Case{"int a__b = 1;", "k.kernel:8: 'a__b': names with '__' or a '_' at the end are kept for generated text"},
        Case{"{ int a = 1; }\na = 2;", "k.kernel:9: 'a' is not declared"}, Case{"N = 5;", "k.kernel:8: 'N' cannot be assigned to"},
        Case{"eps = 5.0f;", "k.kernel:8: 'eps' cannot be assigned to"}, Case{"const int a = 1;\na++;", "k.kernel:9: 'a' cannot be assigned to"},
        Case{"v.xy = v.zw;", "k.kernel:8: 'v.xy' cannot be assigned to"}, Case{"two = two;", "k.kernel:8: 'two' cannot be assigned to"}));

INSTANTIATE_TEST_SUITE_P(
    Shape, StatementError,
    testing::Values(
        Case{"f = 2.0f\nf = 3.0f;", "k.kernel:8: expected ';' after the statement, found 'f'"},
        Case{"f = (2.0f;\n", "k.kernel:8: expected ')' to close this expression, found ';'"},
        Case{"f = ;", "k.kernel:8: unexpected ';' in an expression"},
        Case{"f;", "k.kernel:8: a statement is an assignment, x++, x--, or a call that does something"},
        Case{"fmax(f, f);", "k.kernel:8: a statement is an assignment, x++, x--, or a call that does something"},
        Case{"{ f = 2.0f;", "k.kernel:7: this '{' is not closed"}, Case{"f = 2.0f; }", "k.kernel:9: nothing may follow the kernel"},
        Case{"f = 1.0f @ 2.0f;", "k.kernel:8: the character '@' has no meaning here"}, Case{"/* open", "k.kernel:8: the comment is not closed"},
        Case{"else f = 2.0f;", "k.kernel:8: 'else' is not a type"}, Case{"static f = 2.0f;", "k.kernel:8: expected 'if' after static, found 'f'"},
        Case{"static if (lane == 0) { }",
             "k.kernel:8: the condition of 'static if' must be known while lowering: numbers, consts and W, nothing else"},
        Case{"static if (N) { }", "k.kernel:8: the condition of 'static if' is a comparison, not int"},
        Case{"if (lane == 0) static if (N == 4) { f = 2.0f; }", "k.kernel:8: a static if governed by another statement needs braces around it"},
        Case{"float a[lane];", "k.kernel:8: the size of an array must be known while lowering"},
        Case{"float a[N - 4];", "k.kernel:8: an array of 0 elements"},
        Case{"float a[N / 0];", "k.kernel:8: the size of an array must be known while lowering"},
        Case{"f = two[2];", "k.kernel:8: index 2 is outside the array of 2"}, Case{"f = two[f];", "k.kernel:8: an index is int, not float"},
        Case{"const float a;", "k.kernel:8: const 'a' needs a value"}, Case{"return 1;", "k.kernel:8: expected ';' after the statement, found '1'"},
        Case{"f = twice(f);", "k.kernel:8: 'twice' takes 2 arguments, 1 were given"},
        Case{"float three[3];\nf = twice(f, three);", "k.kernel:9: 'twice': w has 2 elements, the value 3"},
        Case{"f = twice(1, two);", "k.kernel:8: 'twice': v is float, the value int"},
        Case{"f = twice(f, part);", "k.kernel:8: 'twice': w is not a shared array, the value is"},
        Case{"v = summed(v, part);", "k.kernel:8: 'summed': v is float, the value float4"},
        Case{"f = summed(f, two);", "k.kernel:8: 'summed': m is a shared array, the value is not"}));

class HeaderError : public testing::TestWithParam<Case> {};

TEST_P(HeaderError, NamesFileLineAndReason) {
  const KernelVariant of{"k", {{"N", 4}}, {{"y", buffer_of(DType::kF32, 1, {4})}}, {}};
  EXPECT_EQ(error_of(GetParam().text, of), GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    Header, HeaderError,
    testing::Values(
        Case{"tensor out float y [i]\nconst int N;", "k.kernel:1: expected ';' after the declaration, found 'const'"},
        Case{"tensor out float y [i];\nconst int N;", "k.kernel:2: the file has no kernel"},
        Case{"tensor out float y [i];\nconst float N;", "k.kernel:2: the type 'float' is not allowed here"},
        Case{"tensor both float y [i];", "k.kernel:1: a tensor is 'in', 'out' or 'inout', not 'both'"},
        Case{"variable int n;", "k.kernel:1: a declaration starts with use, tensor, const, arg, param, shared, fn or kernel, not 'variable'"},
        Case{"tensor out float y [i]; const int N;\nconst int M;\nkernel k(1, 1, 1) { }", "k.kernel:2: the variant gives no value for const 'M'"},
        Case{"tensor out float y [i];\nkernel k(1, 1, 1) { }", "k.kernel: the variant gives a value for 'N', which is not a const of this kernel"},
        Case{"tensor out float z [i]; const int N;\nkernel k(1, 1, 1) { }", "k.kernel:1: the variant gives no layout for tensor 'z'"},
        Case{"const int N;\ntensor out float y [i] if N == 5;\nkernel k(1, 1, 1) { }",
             "k.kernel:2: the variant gives a layout for tensor 'y', whose condition is false"},
        Case{"const int N;\ntensor out float y [i] if M == 5;\nkernel k(1, 1, 1) { }", "k.kernel:2: 'M' is not declared"},
        Case{"const int N;\ntensor out float y [i] if;\nkernel k(1, 1, 1) { }", "k.kernel:2: 'if' takes a condition over constants"},
        Case{"const int N;\nkernel k(1, 1, 1) { }", "k.kernel: the variant gives a layout for 'y', which is not a tensor of this kernel"},
        Case{"const int N;\ntensor out float y [row, slice];\nkernel k(1, 1, 1) { }",
             "k.kernel:2: tensor 'y': has 2 axes, the layout of this variant 1"},
        Case{"const int N;\ntensor out float4 y [i];\nkernel k(1, 1, 1) { }",
             "k.kernel:2: tensor 'y': a texel of float4 has 4 lanes, the layout of this variant 1"},
        Case{"const int N;\ntensor out int y [i];\nkernel k(1, 1, 1) { }",
             "k.kernel:2: tensor 'y': a texel of int that is written cannot have elements of f32 in storage buffer"},
        Case{"const int N;\ntensor inout int y [i];\nkernel k(1, 1, 1) { }",
             "k.kernel:2: tensor 'y': a texel of int that is written cannot have elements of f32 in storage buffer"},
        Case{"const int N;\ntensor out double y [i];\nkernel k(1, 1, 1) { }",
             "k.kernel:2: a tensor's texel is float, int or uint, alone or as a vector, not 'double'"},
        Case{"const int N; const int W; tensor out float y [i];\nkernel k(1, 1, 1) { }", "k.kernel:1: the variant gives no value for const 'W'"},
        Case{"const int n; tensor out float y [i];\nkernel k(1, 1, 1) { }", "k.kernel:1: const 'n': consts are named in capitals"},
        Case{"const int N; tensor out float y [i];\nparam int steps;\nkernel k(1, 1, 1) { }",
             "k.kernel:2: 'steps' is not a word of the run-time parameter buffer"},
        Case{"const int N; tensor out float y [i];\narg int y;\nkernel k(1, 1, 1) { }", "k.kernel:2: 'y' is already declared on line 1"},
        Case{"const int N; tensor out float y [i];\nshared float m[N - 4];\nkernel k(1, 1, 1) { }",
             "k.kernel:2: shared array 'm' would have 0 elements"},
        Case{"const int N; tensor out float y [i];\nshared bool m[4];\nkernel k(1, 1, 1) { }", "k.kernel:2: a shared array cannot be of 'bool'"},
        Case{"const int N; tensor out float y [i];\nkernel k(N - 4, 1, 1) { }", "k.kernel:2: a workgroup size cannot be 0"},
        Case{"const int N; tensor out float y [i];\nkernel k(N, 1) { }", "k.kernel:2: the workgroup takes three sizes: kernel NAME(X, Y, Z)"},
        Case{"const int N; tensor out float y [i];\nkernel j(N, 1, 1) { }", "k.kernel:2: the kernel is called 'j', its file 'k.kernel'"},
        Case{"const int N; tensor out float y [i];\nkernel k(N, 1, 1) { }\narg int n;", "k.kernel:3: nothing may follow the kernel"},
        Case{"use lib/none;", "k.kernel:1: there is no kernel file 'lib/none'"},
        Case{"use lib/broken; const int N; tensor out float y [i];\nkernel k(1, 1, 1) { y.write(odd(1.0f), 0); }",
             "lib/broken.kernel:2: 'w' is not declared"},
        Case{"fn float odd(float v) { return v; }\nfn float odd(float v) { return v; }",
             "k.kernel:2: function 'odd' is already defined in k.kernel:1"},
        Case{"fn float f(float m[4]) { return m[0]; }", "k.kernel:1: an array parameter is const: a function may read it, not write it"},
        Case{"const int N; tensor out float y [i]; tensor in float x [i] if N == 5;\nfn float f(float v) {\n  return y.read(0);\n}\nkernel k(1, 1, "
             "1) { y.write(f(1.0f), 0); }",
             "k.kernel:3: tensor 'y' is read and written in the kernel's body only"},
        Case{"const int N; tensor out float y [i]; arg float e;\nfn float f(float v) {\n  return v * e;\n}\nkernel k(1, 1, 1) { y.write(f(1.0f), 0); "
             "}",
             "k.kernel:3: a function does not see the arg 'e': pass it"},
        Case{"const int N; tensor out float y [i];\nfn float f(float v) {\n  return 1;\n}\nkernel k(1, 1, 1) { y.write(f(1.0f), 0); }",
             "k.kernel:3: the result is float, the value int; nothing converts by itself: write float(…)"},
        Case{"const int N; tensor out float y [i];\nfn float f(const float v) {\n  v = 2.0f;\n  return v;\n}\nkernel k(1, 1, 1) { y.write(f(1.0f), "
             "0); }",
             "k.kernel:3: 'v' cannot be assigned to"},
        Case{"const int N; tensor out float y [i];\nfn float f(float v) {\n  return f(v);\n}\nkernel k(1, 1, 1) { y.write(f(1.0f), 0); }",
             "k.kernel:3: 'f' calls itself: the targets have no recursion"}));

// No target reads and writes one image in one dispatch.
TEST(CodegenErrors, AnImageThatIsReadAndWritten) {
  for (const Storage storage : {Storage::kImageBuffer, Storage::kImage2D, Storage::kImage2DArray, Storage::kImage3D}) {
    const KernelVariant of{"k", {}, {{"y", test::layout_of(storage, DType::kF32, 4, {4})}}, {}};
    EXPECT_EQ(error_of("tensor inout float4 y [i];\nkernel k(1, 1, 1) { }", of),
              cat("k.kernel:1: tensor 'y': what is 'inout' lives in a buffer, not in storage ", name_of(storage)));
  }
}

TEST(CodegenErrors, AWidthThatTheTargetHasNot) {
  KernelVariant of = variant();
  of.words.vector_width = 8;
  const Result<LoweredKernel> glsl = lower(KernelTexts{{"k", std::string(kHead) + "}"}}, of, Target::kGlsl, {"tokens"});
  ASSERT_FALSE(glsl.has_value());
  EXPECT_EQ(glsl.error().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(glsl.error().message(), "k.kernel: floatw cannot have 8 lanes here (OpenCL C: 4, 8 or 16; GLSL: 4)");
  of.words.vector_width = 3;
  EXPECT_FALSE(lower(KernelTexts{{"k", std::string(kHead) + "}"}}, of, Target::kOpenCL, {"tokens"}).has_value());
}

TEST(CodegenErrors, DeepNestingIsAnErrorAndNotACrash) {
  const int depth = 100000;
  std::string signs = "f = ";
  for (int i = 0; i < depth; ++i) signs += "- ";
  for (const std::string& statement :
       {"f = " + std::string(depth, '(') + "1.0f" + std::string(depth, ')') + ";", signs + "f;", std::string(depth, '{') + std::string(depth, '}')}) {
    const std::string message = error_of(kHead + statement + "}");
    EXPECT_NE(message.find("nested too deeply"), std::string::npos) << message.substr(0, 200);
  }
}

// Whatever is left out or doubled, lowering answers: text or an error with a line.
TEST(CodegenErrors, DamagedKernelsGetAnAnswer) {
  const std::string whole =
      std::string(kHead) +
      "for (int i = 0; i < N; i++) { if (i % 2 == 1) f += two[i & 1]; else f -= twice(f, two); }\n"
      "static if (N == 4 && !NORM) { v.x = summed(f, part); } else { v.y = -1.0f; }\ny.write(v * float4(f, eps, 1.0f, f), tokens, lane);\n}\n";
  ASSERT_EQ(error_of(whole), "");
  std::mt19937 random(7);
  for (int round = 0; round < 3000; ++round) {
    std::string text = whole;
    for (int edit = 0; edit <= round % 3; ++edit) {
      const size_t at = random() % text.size();
      const size_t length = 1 + random() % 4;
      if (random() % 2 == 0) {
        text.erase(at, length);
      } else {
        text.insert(at, text.substr(random() % text.size(), length));
      }
    }
    const std::string message = error_of(text);
    EXPECT_NE(message, "the targets disagree") << text;
    const bool placed = message.empty() || message.starts_with("k.kernel:") || message.find("there is no kernel") != std::string::npos;
    EXPECT_TRUE(placed) << message;
  }
}

}  // namespace
}  // namespace tessera
