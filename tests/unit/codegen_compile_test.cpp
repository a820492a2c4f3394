// Every word, operator, conversion and way of access of the dialect, as far as lowering accepts it, compiles for both targets with compilers that
// we did not write. The kernels are made from the tables themselves: a new row is tested by being there.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernel_texts.hpp"
#include "offline_compile.hpp"

namespace tessera {
namespace {

using codegen::Kind;
using codegen::Type;
using test::KernelTexts;

struct Variable {
  std::string name;
  std::string type;
  std::string value;
};

const std::vector<Variable>& variables() {
  static const std::vector<Variable> kVariables = {{"f", "float", "1.0f"},        {"f2", "float2", "float2(f)"}, {"f4", "float4", "float4(f)"},
                                                   {"fw", "floatw", "floatw(f)"}, {"c", "calc", "calc(f)"},      {"c2", "calc2", "calc2(c)"},
                                                   {"c4", "calc4", "calc4(c)"},   {"i", "int", "lane"},          {"i2", "int2", "int2(i)"},
                                                   {"i4", "int4", "int4(i)"},     {"u", "uint", "uint(i)"},      {"u2", "uint2", "uint2(u)"},
                                                   {"u4", "uint4", "uint4(u)"},   {"b", "bool", "i == 0"},       {"iw", "intw", "intw(i)"},      {"uw", "uintw", "uintw(u)"},
                                                   {"pw", "pairsw", "no_pairs()"}};
  return kVariables;
}

// A kernel whose body declares all variables and then has these statements.
std::string kernel_with(const std::vector<std::string>& statements) {
  std::string text = "tensor out float y [i];\nkernel k(32, 1, 1) {\nconst int lane = local_id(0);\n";
  for (const Variable& v : variables()) text += v.type + " " + v.name + " = " + v.value + ";\n";
  for (const std::string& statement : statements) text += statement + "\n";
  return text + "y.write(f, lane);\n}\n";
}

struct Setting {
  Target target;
  WordChoice words;
};

// Each value of each choice is met; not each combination.
const std::vector<Setting>& settings() {
  static const std::vector<Setting> kSettings = {{Target::kOpenCL, {4, false, true, DotForm::kPlain}},
                                                 {Target::kOpenCL, {8, true, true, DotForm::kPairs}},
                                                 {Target::kOpenCL, {16, false, false, DotForm::kPlain}},
                                                 {Target::kOpenCL, {4, true, false, DotForm::kSignedSigned}},
                                                 {Target::kOpenCL, {4, false, false, DotForm::kSignedUnsigned}},
                                                 {Target::kGlsl, {4, false, true, DotForm::kPlain}},
                                                 {Target::kGlsl, {4, true, false, DotForm::kSignedSigned}},
                                                 {Target::kGlsl, {4, false, false, DotForm::kSignedUnsigned}}};
  return kSettings;
}

Status compile(const LoweredKernel& kernel, Target target) {
  return target == Target::kOpenCL ? test::compile_opencl(kernel) : test::compile_glsl(kernel);
}

void expect_compiles(const KernelTexts& library, const KernelVariant& variant, Target target, const std::string& what) {
  const Result<LoweredKernel> kernel = lower(library, variant, target, {"position", "tokens"});
  ASSERT_TRUE(kernel.has_value()) << what << ": " << kernel.error().message();
  const Status status = compile(*kernel, target);
  if (!status && status.error().code() == ErrorCode::kNotFound) GTEST_SKIP() << status.error().message();
  EXPECT_TRUE(status.has_value()) << what << "\n" << status.error().message();
}

void expect_compiles_everywhere(const std::vector<std::string>& statements, const std::string& what) {
  for (const Setting& setting : settings()) {
    KernelVariant variant{"k", {}, {{"y", test::buffer_of(DType::kF32, 1, {64})}}, setting.words};
    expect_compiles({{"k", kernel_with(statements)}}, variant, setting.target, what);
  }
}

bool lowers(const std::string& statement) {
  const KernelTexts library{{"k", kernel_with({statement})}};
  const KernelVariant variant{"k", {}, {{"y", test::buffer_of(DType::kF32, 1, {64})}}, {}};
  return lower(library, variant, Target::kOpenCL, {}).has_value();
}

using Call = std::vector<codegen::Expr>;

// The arguments that a parameter of a signature might get.
Call candidates(std::string_view parameter) {
  Call out;
  for (const char* dimension : {"0", "1", "2"})
    if (parameter == "D") out.push_back({dimension, {Kind::kInt, 1}});
  for (const Variable& v : variables())
    if (v.type == parameter || (parameter.size() == 1 && parameter != "D")) out.push_back({v.name, codegen::type_row(v.type)->type});
  return out;
}

// Every way to call the word with these variables, fitting or not.
std::vector<Call> calls_of(const codegen::Word& word) {
  std::vector<Call> calls(1);
  std::string_view rest = word.signature.substr(word.signature.find('(') + 1);
  for (rest.remove_suffix(1); !rest.empty();) {
    const size_t comma = std::min(rest.find(','), rest.size());
    std::vector<Call> longer;
    for (const Call& call : calls)
      for (const codegen::Expr& argument : candidates(rest.substr(0, comma))) {
        longer.push_back(call);
        longer.back().push_back(argument);
      }
    calls = std::move(longer);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  return calls;
}

TEST(CodegenCompile, EveryWordForEveryTypeItTakes) {
  std::vector<std::string> statements;
  for (const codegen::Word& word : codegen::kWords) {
    const size_t before = statements.size();
    for (const Call& call : calls_of(word)) {
      const std::optional<Type> type = codegen::word_result(word.signature, call);
      if (!type) continue;
      std::string text = cat(word.name, "(");
      for (const codegen::Expr& argument : call) text += (text.ends_with('(') ? "" : ", ") + argument.text;
      statements.push_back(type->kind == Kind::kVoid ? text + ");" : cat("{ const ", codegen::name_of(*type), " r = ", text, "); }"));
    }
    EXPECT_GT(statements.size(), before) << word.name << " takes nothing";
  }
  expect_compiles_everywhere(statements, "words");
}

TEST(CodegenCompile, EveryOperatorForEveryPairItTakes) {
  std::vector<std::string> statements;
  for (const codegen::OpRow& op : codegen::kBinaryOps)
    for (const Variable& a : variables())
      for (const Variable& b : variables()) {
        const Type left = codegen::type_row(a.type)->type;
        const std::optional<Type> type = codegen::result_type(op.kind, left, codegen::type_row(b.type)->type);
        if (!type) continue;
        statements.push_back(cat("{ const ", codegen::name_of(*type), " r = ", a.name, " ", op.text, " ", b.name, "; }"));
        const bool assigns = op.kind != codegen::OpClass::kLogic && op.kind != codegen::OpClass::kEquality && op.kind != codegen::OpClass::kOrder;
        if (assigns && codegen::assignable(left, *type)) statements.push_back(cat(a.name, " ", op.text, "= ", b.name, ";"));
      }
  ASSERT_GT(statements.size(), 200u);
  expect_compiles_everywhere(statements, "operators");
}

TEST(CodegenCompile, EveryConversionConstructorAndUnaryOperator) {
  std::vector<std::string> statements = {"{ const float4 r = float4(f, 1.0f, f, f); }",
                                         "{ const int2 r = int2(i, 2); }",
                                         "{ const uint4 r = uint4(u, i, 1u, 2); }",
                                         "{ const calc4 r = calc4(c, c, calc(2.0f), c); }",
                                         "{ const int r = i > 0 ? i : 1; }",
                                         "{ const float4 r = b ? f4 : -f4; }",
                                         "{ const float2 r = f4.xy + f4.zw; }",
                                         "{ const float4 r = f4.wzyx; }",
                                         "f4.x = 1.0f;",
                                         "u4.w += 1u;",
                                         "i++;",
                                         "u--;",
                                         "{ const int r = - -i; }",
                                         "{ const bool r = !b && !(i < 2); }",
                                         "{ const uint r = ~u; }",
                                         "{ const int4 r = ~i4; }"};
  for (const Variable& to : variables())
    for (const Variable& from : variables())
      for (const std::string& form : {to.type + "(" + from.name + ")", "to_" + to.type + "(" + from.name + ")"}) {
        const std::string statement = cat("{ const ", to.type, " r = ", form, "; }");
        if (lowers(statement)) statements.push_back(statement);
      }
  expect_compiles_everywhere(statements, "conversions");
}

TEST(CodegenCompile, StatementsArraysAndFunctions) {
  const std::string text = R"(use lib/sums;
tensor in  float4 x     [row, slice];
tensor in  float4 extra [slice] if EXTRA;
tensor out float4 y     [row, slice];
tensor out float  z     [row];
const int  N;
const bool EXTRA;
arg   int   first;
arg   uint  mask;
arg   float scale;
param int   tokens;
shared float  some[N * 2];
shared float4 more[N];
shared calc4  cs[N];
fn float weighted(const float4 v[4], float w) {
  float sum = 0.0f;
  unroll for (int i = 0; i < 4; i++) sum += v[i].x * w;
  return sum;
}
kernel k(N, 1, 1) {
  const int lane = local_id(0);
  const int row = group_id(0) + first;
  float4 v[4];
  unroll for (int i = 0; i < 4; i++) v[i] = x.read<float>(row, (lane + i) & 3);
  calc4 c = calc4(calc(0.0f));
  rolled for (int s = lane; s < 8; s += N) c += x.read<calc>(row, s);
  cs[lane] = c;
  static if (EXTRA) {
    v[0] += extra.read<float>(lane);
  } else {
    v[0] *= 2.0f;
  }
  int n = 0;
  while (n < tokens) {
    n++;
    if (n == 5) continue;
    if ((uint(n) & mask) == 3u) { break; } else if (n > 7) n += 2; else n += 3;
  }
  const float total = total_of(weighted(v, scale), some);
  const float4 all = total_of(v[1], more) * twice(total);
  if (row < tokens) {
    y.write(all + to_float4(cs[0]), row, lane);
    if (lane == 0) z.write(total, row);
  }
})";
  const std::string sums = R"(fn T total_of(T v, shared T m[]) {
  m[local_id(0)] = v;
  workgroup_barrier();
  T sum = m[0];
  for (int i = 1; i < m.length; i++) sum += m[i];
  workgroup_barrier();
  return sum;
}
fn T twice(T v) { return v + v; })";
  const KernelTexts library{{"k", text}, {"lib/sums", sums}};
  for (const Setting& setting : settings())
    for (int extra : {0, 1}) {
      KernelVariant variant{"k", {{"N", 8}, {"EXTRA", extra}}, {}, setting.words};
      variant.tensors = {{"x", test::buffer_of(DType::kF16, 4, {4, 8})},
                         {"y", test::buffer_of(DType::kF32, 4, {4, 8})},
                         {"z", test::buffer_of(DType::kF16, 1, {4})}};
      if (extra == 1) variant.tensors["extra"] = test::buffer_of(DType::kF32, 4, {8});
      expect_compiles(library, variant, setting.target, "statements");
    }
}

// One kernel that copies texels of every type from each storage and element that they may have to the same, or, where nothing is written, to floats.
TEST(CodegenCompile, EveryTexelInEveryStorageAndElement) {
  for (const Setting& setting : settings()) {
    std::string header, body;
    KernelVariant variant{"k", {}, {}, setting.words};
    for (const std::string texel : {"float", "float2", "float4", "floatw", "int", "int2", "int4", "uint", "uint2", "uint4"})
      for (size_t s = 0; s < kStorageRows.size(); ++s)
        for (DType element : {DType::kF32, DType::kF16, DType::kBF16, DType::kI8, DType::kU8, DType::kI32, DType::kU32}) {
          const auto storage = static_cast<Storage>(s);
          const int own = codegen::type_row(texel)->type.lanes;
          Layout layout = test::layout_of(storage, element, own == codegen::kWide ? setting.words.vector_width : own, {100, 3, 5});
          layout.fold = row_of(storage).form == StorageForm::kLine ? 0 : 64;
          const auto access = [&](bool written) {
            const codegen::TensorDecl decl{"x", texel, written, {"a", "b", "c"}, {}, 1};
            return codegen::TensorAccess::bind(decl, layout, {setting.target, setting.words});
          };
          const bool floats = texel.starts_with("float"), buffer = storage == Storage::kBuffer;
          const bool natural = element == (floats                     ? DType::kF32
                                           : texel.starts_with("int") ? DType::kI32
                                                                      : DType::kU32) ||
                               (floats && element == DType::kF16);
          const bool bytes = texel == "float4" && element == DType::kI8 && buffer;
          const bool narrow = element == DType::kBF16 || element == DType::kI8 || element == DType::kU8;  // read by weights' floatw, from any storage
          const bool converted = narrow && (texel == "floatw" || (texel == "float4" && !buffer));
          const bool placed = buffer || own == 4 || own == codegen::kWide;
          const std::string name = cat(texel, "_", name_of(storage), "_", name_of(element));
          const bool writes = (natural && placed) || bytes, reads = writes || converted;
          ASSERT_EQ(access(false).has_value(), reads) << name;
          ASSERT_EQ(access(true).has_value(), writes) << name;
          if (!reads || !writes) {
            EXPECT_EQ(access(true).error().code(), ErrorCode::kUnsupported) << access(true).error().message();
          }
          if (!reads) continue;
          if (writes && buffer) {
            header += cat("tensor inout ", texel, " z_", name, " [a, b, c];\n");
            body += cat("z_", name, ".write(z_", name, ".read(a, 1, 2), a, 1, 2);\n");
            variant.tensors["z_" + name] = layout;
          }
          header += cat("tensor in ", texel, " x_", name, " [a, b, c];\ntensor out ", texel, " y_", name, " [a, b, c];\n");
          body += cat("y_", name, ".write(x_", name, ".read(a, 1, 2), a + 1, 0, a % 5);\n");
          variant.tensors["x_" + name] = layout;
          variant.tensors["y_" + name] = writes ? layout : test::buffer_of(DType::kF32, layout.lanes, layout.grid);
        }
    expect_compiles({{"k", cat(header, "kernel k(1, 1, 1) {\nconst int a = group_id(0);\n", body, "}")}}, variant, setting.target, "copies");
  }
}

// What the compilers say about generated text names the kernel file and its line, past a static if that left lines out.
TEST(CodegenCompile, CompilerErrorsNameTheLineOfTheKernelFile) {
  const std::string text =
      "tensor in float4 x [i];\ntensor out float4 y [i];\nkernel k(1, 1, 1) {\n  static if (W == 0) {\n    int gone;\n  }\n\n  y.write(x.read(0), "
      "0);\n}\n";
  for (Target target : {Target::kOpenCL, Target::kGlsl}) {
    Result<LoweredKernel> kernel =
        lower(KernelTexts{{"k", text}}, {"k", {}, {{"x", test::buffer_of(DType::kF32, 4, {8})}, {"y", test::buffer_of(DType::kF32, 4, {8})}}, {}},
              target, {});
    ASSERT_TRUE(kernel.has_value()) << kernel.error().message();
    kernel->text.replace(kernel->text.find("x[0]"), 4, "nonsense");
    const Status status = compile(*kernel, target);
    ASSERT_FALSE(status.has_value());
    if (status.error().code() == ErrorCode::kNotFound) GTEST_SKIP() << status.error().message();
    EXPECT_EQ(status.error().code(), ErrorCode::kCompile);
    EXPECT_NE(status.error().message().find("k.kernel:8"), std::string::npos) << status.error().message();
  }
}

}  // namespace
}  // namespace tessera
