// The vocabulary of the kernel dialect as data: types, words and the helper functions they need, one row each, spelled for OpenCL C 1.2 and GLSL 4.50.
//
// Patterns: {0} {1} {2} = the arguments as text; {0.axis} = x, y or z for a dimension 0, 1, 2; {W} = lanes of floatw, intw, uintw.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/codegen/variant.hpp"

namespace tessera::codegen {

enum class Kind : uint8_t { kVoid, kBool, kInt, kUint, kFloat, kCalc, kPairs };

// `kWide` lanes: W of them. floatw and float4 stay different types even where W is 4, so that a kernel that holds for one width holds for all.
constexpr int kWide = -1;
struct Type {
  Kind kind = Kind::kVoid;
  int lanes = 1;
  bool operator==(const Type&) const = default;
  bool scalar() const { return lanes == 1; }
  bool integral() const { return kind == Kind::kInt || kind == Kind::kUint; }
  bool numeric() const { return kind == Kind::kInt || kind == Kind::kUint || kind == Kind::kFloat || kind == Kind::kCalc; }
  Type element() const { return {kind, 1}; }
};

struct TypeRow {
  std::string_view name;
  Type type;
  std::string_view opencl;
  std::string_view glsl;
  std::string_view half_opencl;  // calc types where calc is half
  std::string_view half_glsl;
};

inline constexpr TypeRow kTypes[] = {
    {"void", {Kind::kVoid, 1}, "void", "void", {}, {}},
    {"bool", {Kind::kBool, 1}, "bool", "bool", {}, {}},
    {"int", {Kind::kInt, 1}, "int", "int", {}, {}},
    {"int2", {Kind::kInt, 2}, "int2", "ivec2", {}, {}},
    {"int4", {Kind::kInt, 4}, "int4", "ivec4", {}, {}},
    {"uint", {Kind::kUint, 1}, "uint", "uint", {}, {}},
    {"uint2", {Kind::kUint, 2}, "uint2", "uvec2", {}, {}},
    {"uint4", {Kind::kUint, 4}, "uint4", "uvec4", {}, {}},
    {"float", {Kind::kFloat, 1}, "float", "float", {}, {}},
    {"float2", {Kind::kFloat, 2}, "float2", "vec2", {}, {}},
    {"float4", {Kind::kFloat, 4}, "float4", "vec4", {}, {}},
    {"floatw", {Kind::kFloat, kWide}, "float{W}", "vec4", {}, {}},
    {"intw", {Kind::kInt, kWide}, "int{W}", "ivec4", {}, {}},
    {"uintw", {Kind::kUint, kWide}, "uint{W}", "uvec4", {}, {}},
    {"pairsw", {Kind::kPairs, kWide}, "int{W}", "ivec4", {}, {}},  // DotForm::kPairs: short16
    {"calc", {Kind::kCalc, 1}, "float", "float", "half", "float16_t"},
    {"calc2", {Kind::kCalc, 2}, "float2", "vec2", "half2", "f16vec2"},
    {"calc4", {Kind::kCalc, 4}, "float4", "vec4", "half4", "f16vec4"},
};

inline const TypeRow* type_row(std::string_view name) {
  for (const TypeRow& row : kTypes)
    if (row.name == name) return &row;
  return nullptr;
}
inline const TypeRow& type_row(Type type) {
  for (const TypeRow& row : kTypes)
    if (row.type == type) return row;
  return kTypes[0];
}

// A signature is RESULT(PARAMETER,…). A parameter is a type, or one of these letters, all of which stand for one and the same type in a row:
//   F  float or calc, any lanes    V  the same, 2 or 4 lanes    N  F, int or uint, any lanes    e  one lane of that type    n  N or e
//   D  a dimension: the literal 0, 1 or 2.   As a result: F, V, N = that type, E = one lane of it.
// Rows of one name are tried in order. `needs` names the helper rows a word relies on.
struct Word {
  std::string_view name;
  std::string_view signature;
  std::string_view opencl;
  std::string_view glsl;
  std::string_view needs = {};
};

inline constexpr Word kWords[] = {
    // where this lane is
    {"group_id", "int(D)", "(int)get_group_id({0})", "int(gl_WorkGroupID.{0.axis})"},
    {"local_id", "int(D)", "(int)get_local_id({0})", "int(gl_LocalInvocationID.{0.axis})"},
    {"global_id", "int(D)", "(int)get_global_id({0})", "int(gl_GlobalInvocationID.{0.axis})"},
    {"group_count", "int(D)", "(int)get_num_groups({0})", "int(gl_NumWorkGroups.{0.axis})"},
    {"workgroup_barrier", "void()", "barrier(CLK_LOCAL_MEM_FENCE)", "barrier()"},
    {"subgroup_lane", "int()", "(int)get_sub_group_local_id()", "int(gl_SubgroupInvocationID)", "subgroup"},
    {"subgroup_id", "int()", "(int)get_sub_group_id()", "int(gl_SubgroupID)", "subgroup"},
    {"subgroup_count", "int()", "(int)get_num_sub_groups()", "int(gl_NumSubgroups)", "subgroup"},
    {"subgroup_size", "int()", "(int)get_sub_group_size()", "int(gl_SubgroupSize)", "subgroup"},
    {"subgroup_sum", "float(float)", "sub_group_reduce_add({0})", "subgroupAdd({0})", "subgroup_arithmetic"},
    {"subgroup_sum", "float4(float4)", "subgroup_sum4_({0})", "subgroupAdd({0})", "subgroup_sum4_"},
    {"subgroup_sum", "int(int)", "sub_group_reduce_add({0})", "subgroupAdd({0})", "subgroup_arithmetic"},
    {"subgroup_max", "float(float)", "sub_group_reduce_max({0})", "subgroupMax({0})", "subgroup_arithmetic"},
    {"subgroup_min", "int(int)", "sub_group_reduce_min({0})", "subgroupMin({0})", "subgroup_arithmetic"},
    // arithmetic
    {"dot", "E(V,V)", "dot({0}, {1})", "dot({0}, {1})"},
    {"min", "N(N,n)", "min({0}, {1})", "min({0}, {1})"},
    {"max", "N(N,n)", "max({0}, {1})", "max({0}, {1})"},
    {"fmin", "F(F,n)", "fmin({0}, {1})", "min({0}, {1})"},
    {"fmax", "F(F,n)", "fmax({0}, {1})", "max({0}, {1})"},
    {"clamp", "N(N,N,N)", "clamp({0}, {1}, {2})", "clamp({0}, {1}, {2})"},
    {"clamp", "N(N,e,e)", "clamp({0}, {1}, {2})", "clamp({0}, {1}, {2})"},
    {"fabs", "F(F)", "fabs({0})", "abs({0})"},
    {"floor", "F(F)", "floor({0})", "floor({0})"},
    {"ceil", "F(F)", "ceil({0})", "ceil({0})"},
    {"round_even", "F(F)", "rint({0})", "roundEven({0})"},
    {"truncate", "floatw(floatw)", "convert_float{W}(convert_int{W}({0}))", "trunc({0})"},  // CPU drivers spell trunc and rint in many operations
    {"sqrt", "F(F)", "sqrt({0})", "sqrt({0})"},
    {"rsqrt", "F(F)", "rsqrt({0})", "inversesqrt({0})"},
    {"exp", "F(F)", "exp({0})", "exp({0})"},
    {"exp_fast", "float(float)", "native_exp({0})", "exp({0})"},
    {"exp_fast", "float4(float4)", "native_exp({0})", "exp({0})"},
    {"exp_fast", "floatw(floatw)", "native_exp({0})", "exp({0})"},
    {"exp_fast", "F(F)", "exp({0})", "exp({0})"},  // calc: OpenCL has no native_exp of half
    {"log", "F(F)", "log({0})", "log({0})"},
    {"pow", "F(F,F)", "pow({0}, {1})", "pow({0}, {1})"},
    {"sin", "F(F)", "sin({0})", "sin({0})"},
    {"cos", "F(F)", "cos({0})", "cos({0})"},
    {"tanh", "F(F)", "tanh({0})", "tanh({0})"},
    {"mad", "F(F,F,F)", "mad({0}, {1}, {2})", "(({0}) * ({1}) + ({2}))"},
    {"horizontal_sum", "float(float4)", "horizontal_sum_({0})", "horizontal_sum_({0})", "horizontal_sum_"},
    {"horizontal_sum", "float(floatw)", "sum_lanes_{W}_({0})", "horizontal_sum_({0})", "sum_lanes_ horizontal_sum_"},
    {"horizontal_max", "float(floatw)", "max_lanes_{W}_({0})", "max_lanes_({0})", "max_lanes_"},
    {"horizontal_sums", "float4(floatw,floatw,floatw,floatw)", "sums_of_lanes_{W}_({0}, {1}, {2}, {3})", "sums_of_lanes_({0}, {1}, {2}, {3})", "sums_of_lanes_"},
    {"rotate_pairs", "floatw(floatw,floatw)", "rotate_pairs_({0}, {1})", "rotate_pairs_({0}, {1})", "rotate_pairs_"},
    {"max_abs", "float(float4)", "max_abs_({0})", "max_abs_({0})", "max_abs_"},
    {"lane", "float(floatw,int)", "lane_({0}, {1})", "({0})[{1}]", "lane_"},
    {"with_lane", "floatw(floatw,int,float)", "with_lane_({0}, {1}, {2})", "with_lane_({0}, {1}, {2})", "with_lane_"},
    // bit patterns
    {"bits_float", "float(uint)", "as_float({0})", "uintBitsToFloat({0})"},
    {"bits_uint", "uint(float)", "as_uint({0})", "floatBitsToUint({0})"},
    {"unpack_u8", "float4(uint)", "convert_float4(as_uchar4({0}))", "unpack_u8_({0})", "unpack_u8_"},
    {"unpack_i8", "float4(uint)", "convert_float4(as_char4({0}))", "unpack_i8_({0})", "unpack_i8_"},
    {"pack_i8", "uint(float4)", "pack_i8_({0})", "pack_i8_({0})", "pack_i8_"},
    {"unpack_half2", "float2(uint)", "unpack_half2_({0})", "unpackHalf2x16({0})", "unpack_half2_"},
    {"pack_half2", "uint(float2)", "pack_half2_({0})", "packHalf2x16(round_half_({0}))", "pack_half2_ round_half_"},
    {"round_half", "floatw(floatw)", "round_half_w_({0})", "round_half_w_({0})", "round_half_ round_half_w_"},
    {"mul_hi", "uint(uint,uint)", "mul_hi({0}, {1})", "mul_hi_({0}, {1})", "mul_hi_"},
    // packed dots of W rows: 4 bytes of each of W words with the 4 signed bytes of one word
    {"no_pairs", "pairsw()", "no_pairs_()", "no_pairs_()", "dots_"},
    {"add_dot4", "pairsw(pairsw,uintw,uint)", "add_dot4_({0}, {1}, {2})", "add_dot4_({0}, {1}, {2})", "dots_"},
    {"add_dot4_signed", "pairsw(pairsw,uintw,uint)", "add_dot4_signed_({0}, {1}, {2})", "add_dot4_signed_({0}, {1}, {2})", "dots_ signed_dots_"},
    {"sum_pairs", "intw(pairsw)", "sum_pairs_({0})", "sum_pairs_({0})", "dots_"},
};

// Text that generated words rely on, emitted once when one of them is used. Extensions are separated by spaces.
struct Helper {
  std::string_view name;
  std::optional<DotForm> form = {};  // where the packed dots are spelled so; none: however they are
  std::string_view opencl_extensions = {};
  std::string_view opencl = {};
  std::string_view glsl_extensions = {};
  std::string_view glsl = {};
};

// clang-format off
inline constexpr Helper kHelpers[] = {
    {.name = "half", .opencl_extensions = "cl_khr_fp16", .glsl_extensions = "GL_EXT_shader_explicit_arithmetic_types_float16"},
    {.name = "storage_16bit", .glsl_extensions = "GL_EXT_shader_16bit_storage"},
    {.name = "control_flow", .glsl_extensions = "GL_EXT_control_flow_attributes"},
    {.name = "samplerless", .glsl_extensions = "GL_EXT_samplerless_texture_functions"},
    {.name = "nearest_", .opencl = "__constant sampler_t nearest_ = CLK_NORMALIZED_COORDS_FALSE | CLK_ADDRESS_CLAMP_TO_EDGE | CLK_FILTER_NEAREST;"},
    {.name = "subgroup", .opencl_extensions = "cl_khr_subgroups", .glsl_extensions = "GL_KHR_shader_subgroup_basic"},
    {.name = "subgroup_arithmetic", .opencl_extensions = "cl_khr_subgroups",
     .glsl_extensions = "GL_KHR_shader_subgroup_basic GL_KHR_shader_subgroup_arithmetic"},
    {.name = "subgroup_sum4_", .opencl_extensions = "cl_khr_subgroups",
     .opencl = R"(float4 subgroup_sum4_(float4 v) {
  return (float4)(sub_group_reduce_add(v.x), sub_group_reduce_add(v.y), sub_group_reduce_add(v.z), sub_group_reduce_add(v.w));
})",
     .glsl_extensions = "GL_KHR_shader_subgroup_basic GL_KHR_shader_subgroup_arithmetic"},
    {.name = "horizontal_sum_", .opencl = "float horizontal_sum_(float4 v) { return v.x + v.y + v.z + v.w; }",
     .glsl = "float horizontal_sum_(vec4 v) { return v.x + v.y + v.z + v.w; }"},
    {.name = "sum_lanes_", .opencl = R"(float sum_lanes_4_(float4 v) { return (v.x + v.z) + (v.y + v.w); }
float sum_lanes_8_(float8 v) { return sum_lanes_4_(v.lo + v.hi); }
float sum_lanes_16_(float16 v) { return sum_lanes_8_(v.lo + v.hi); })"},
    {.name = "max_lanes_", .opencl = R"(float max_lanes_4_(float4 v) { return max(max(v.x, v.z), max(v.y, v.w)); }
float max_lanes_8_(float8 v) { return max_lanes_4_(max(v.lo, v.hi)); }
float max_lanes_16_(float16 v) { return max_lanes_8_(max(v.lo, v.hi)); })", .glsl = "float max_lanes_(vec4 v) { return max(max(v.x, v.z), max(v.y, v.w)); }"},
    {.name = "max_abs_", .opencl = "float max_abs_(float4 v) { return max(max(fabs(v.x), fabs(v.y)), max(fabs(v.z), fabs(v.w))); }",
     .glsl = "float max_abs_(vec4 v) { return max(max(abs(v.x), abs(v.y)), max(abs(v.z), abs(v.w))); }"},
    // Halves are added, and what is left of two vectors in one, until each lane has the sum of another: three additions a vector, not W − 1.
    {.name = "sums_of_lanes_", .opencl = R"(float4 sums_of_lanes_4_(float4 a, float4 b, float4 c, float4 d) {
  const float4 ab = (float4)(a.lo, b.lo) + (float4)(a.hi, b.hi), cd = (float4)(c.lo, d.lo) + (float4)(c.hi, d.hi);
  return (float4)(ab.even, cd.even) + (float4)(ab.odd, cd.odd);
}
float4 sums_of_lanes_8_(float8 a, float8 b, float8 c, float8 d) {
  const float8 ab = (float8)(a.lo, b.lo) + (float8)(a.hi, b.hi), cd = (float8)(c.lo, d.lo) + (float8)(c.hi, d.hi);
  const float8 ac_bd = (float8)(ab.s01, cd.s01, ab.s45, cd.s45) + (float8)(ab.s23, cd.s23, ab.s67, cd.s67);
  const float8 sums = ac_bd + ac_bd.s10325476;
  return sums.s0426;
}
float4 sums_of_lanes_16_(float16 a, float16 b, float16 c, float16 d) {
  const float16 ab = (float16)(a.lo, b.lo) + (float16)(a.hi, b.hi), cd = (float16)(c.lo, d.lo) + (float16)(c.hi, d.hi);
  float16 q = (float16)(ab.s0123, ab.s89ab, cd.s0123, cd.s89ab) + (float16)(ab.s4567, ab.scdef, cd.s4567, cd.scdef);
  q += q.s23016745ab89efcd;
  q += q.s1032547698badcfe;
  return q.s048c;
})",
     .glsl = R"(vec4 sums_of_lanes_(vec4 a, vec4 b, vec4 c, vec4 d) {
  const vec4 ab = vec4(a.xy, b.xy) + vec4(a.zw, b.zw), cd = vec4(c.xy, d.xy) + vec4(c.zw, d.zw);
  return vec4(ab.xz, cd.xz) + vec4(ab.yw, cd.yw);
})"},
    {.name = "prefetch_", .opencl = R"(#ifdef __x86_64__
#define prefetch_(p) __builtin_prefetch(p)
#else
#define prefetch_(p)
#endif)"},
    {.name = "rotate_pairs_", .opencl = R"(float{W} rotate_pairs_(float{W} v, float{W} a) {
  float{W} r;
  r.even = v.even * a.even - v.odd * a.odd;
  r.odd = v.even * a.odd + v.odd * a.even;
  return r;
})", .glsl = R"(vec4 rotate_pairs_(vec4 v, vec4 a) {
  const vec2 first = v.xz * a.xz - v.yw * a.yw, second = v.xz * a.yw + v.yw * a.xz;
  return vec4(first.x, second.x, first.y, second.y);
})"},
    {.name = "lane_", .opencl = R"(float lane_(float{W} v, int i) {
  union { float{W} whole; float part[{W}]; } u;
  u.whole = v;
  return u.part[i];
})"},
    {.name = "with_lane_", .opencl = R"(float{W} with_lane_(float{W} v, int i, float x) {
  union { float{W} whole; float part[{W}]; } u;
  u.whole = v;
  u.part[i] = x;
  return u.whole;
})", .glsl = R"(vec4 with_lane_(vec4 v, int i, float x) {
  v[i] = x;
  return v;
})"},
    {.name = "unpack_u8_",
     .glsl = "vec4 unpack_u8_(uint q) { return vec4(float(q & 255u), float((q >> 8) & 255u), float((q >> 16) & 255u), float(q >> 24)); }"},
    {.name = "unpack_i8_", .glsl = R"(vec4 unpack_i8_(uint q) {
  const int i = int(q);
  return vec4(float(bitfieldExtract(i, 0, 8)), float(bitfieldExtract(i, 8, 8)), float(bitfieldExtract(i, 16, 8)), float(i >> 24));
})"},
    // 1.5 · 2²³ added to a small float leaves it rounded to even in the lowest bits: compilers for CPUs spell convert_char4_sat_rte in ten times as much.
    {.name = "pack_i8_", .opencl = "uint pack_i8_(float4 v) { return as_uint(convert_char4(as_int4(clamp(v, -128.0f, 127.0f) + 12582912.0f))); }", .glsl = R"(uint pack_i8_(vec4 v) {
  const uvec4 b = uvec4(ivec4(clamp(roundEven(v), -128.0, 127.0))) & 255u;
  return b.x | (b.y << 8) | (b.z << 16) | (b.w << 24);
})"},
    {.name = "unpack_half2_", .opencl = "float2 unpack_half2_(uint q) { return vload_half2(0, (const half*)&q); }"},
    {.name = "pack_half2_", .opencl = R"(uint pack_half2_(float2 v) {
  uint q;
  vstore_half2_rte(v, 0, (half*)&q);
  return q;
})"},
    {.name = "mul_hi_", .glsl = R"(uint mul_hi_(uint a, uint b) {
  uint high;
  uint low;
  umulExtended(a, b, high, low);
  return high;
})"},
    {.name = "load_half4_", .glsl = "vec4 load_half4_(uvec2 q) { return vec4(unpackHalf2x16(q.x), unpackHalf2x16(q.y)); }"},
    // The rounding of packHalf2x16 and of stores to images of halves is left to the driver, and some cut: a bias that adds up over a context. Rounded to the
    // nearest even significand of 11 bits first, there is nothing left to cut (but below 2^-14, where it is less than 2^-24). NaNs stay: what a carry would
    // make of one with all bits set is a zero. OpenCL's vstore_half rounds to the nearest by itself.
    {.name = "round_half_", .opencl = R"(float4 round_half_(float4 v) {
  const uint4 b = as_uint4(v);
  return as_float4(select((b + 0xfffu + ((b >> 13) & 1u)) & 0xffffe000u, b, (b & 0x7fffffffu) > 0x7f800000u));
})", .glsl = R"(uvec4 round_half_bits_(uvec4 b) { return mix((b + 0xfffu + ((b >> 13) & 1u)) & 0xffffe000u, b, greaterThan(b & 0x7fffffffu, uvec4(0x7f800000u))); }
vec4 round_half_(vec4 v) { return uintBitsToFloat(round_half_bits_(floatBitsToUint(v))); }
vec2 round_half_(vec2 v) { return round_half_(v.xyxy).xy; }
float round_half_(float v) { return round_half_(vec4(v)).x; })"},
    {.name = "round_half_w_", .opencl = R"(float{W} round_half_w_(float{W} v) {
  uint q[{W} / 2];
  vstore_half{W}_rte(v, 0, (half*)q);
  return vload_half{W}(0, (const half*)q);
})", .glsl = R"(vec2 round_two_(vec2 v) {  // apart: of both at once lavapipe gives 0 for the second
  const uint q = packHalf2x16(v);
  return vec2(unpackHalf2x16(q & 0xffffu).x, unpackHalf2x16(q >> 16).x);
}
vec4 round_half_w_(vec4 v) {
  const vec4 r = round_half_(v);
  return vec4(round_two_(r.xy), round_two_(r.zw));
})"},
    {.name = "store_half4_", .glsl = "uvec2 store_half4_(vec4 v) { const vec4 r = round_half_(v); return uvec2(packHalf2x16(r.xy), packHalf2x16(r.zw)); }"},
    {.name = "load_bf16_4_",
     .glsl = "vec4 load_bf16_4_(uvec2 q) { return uintBitsToFloat(uvec4(q.x << 16, q.x & 0xffff0000u, q.y << 16, q.y & 0xffff0000u)); }"},
    // Plain arithmetic on 32 bits: shifts spread the bytes, W products at once.
    {.name = "dots_", .form = DotForm::kPlain, .opencl = R"(int{W} no_pairs_(void) { return (int{W})(0); }
int{W} add_dot4_(int{W} sum, uint{W} w, uint a) {
  const char4 b = as_char4(a);
  return sum + as_int{W}(w & 255u) * b.x + as_int{W}((w >> 8) & 255u) * b.y + as_int{W}((w >> 16) & 255u) * b.z + as_int{W}(w >> 24) * b.w;
}
int{W} sum_pairs_(int{W} sum) { return sum; })", .glsl = R"(ivec4 no_pairs_() { return ivec4(0); }
ivec4 add_dot4_(ivec4 sum, uvec4 w, uint a) {
  const int b = int(a);
  return sum + ivec4(w & 255u) * bitfieldExtract(b, 0, 8) + ivec4((w >> 8) & 255u) * bitfieldExtract(b, 8, 8) +
         ivec4((w >> 16) & 255u) * bitfieldExtract(b, 16, 8) + ivec4(w >> 24) * (b >> 24);
}
ivec4 sum_pairs_(ivec4 sum) { return sum; })"},
    {.name = "signed_dots_", .form = DotForm::kPlain, .opencl = R"(int{W} add_dot4_signed_(int{W} sum, uint{W} w, uint a) {
  const char4 b = as_char4(a);
  const int{W} v = as_int{W}(w);
  return sum + ((v << 24) >> 24) * b.x + ((v << 16) >> 24) * b.y + ((v << 8) >> 24) * b.z + (v >> 24) * b.w;
})", .glsl = R"(ivec4 add_dot4_signed_(ivec4 sum, uvec4 w, uint a) {
  const int b = int(a);
  const ivec4 v = ivec4(w);
  return sum + ((v << 24) >> 24) * bitfieldExtract(b, 0, 8) + ((v << 16) >> 24) * bitfieldExtract(b, 8, 8) +
         ((v << 8) >> 24) * bitfieldExtract(b, 16, 8) + (v >> 24) * (b >> 24);
})"},
    // For vectors of a CPU: 16-bit lanes 2r and 2r + 1 keep the sums of row r over bytes 0, 2 and over bytes 1, 3. An x86 compiler with AVX2 has one instruction
    // for 32 products and 16 sums, pmaddubsw; C's own arithmetic, which compilers do not turn into it, takes two products and four shifts.
    {.name = "dots_", .form = DotForm::kPairs, .opencl = R"(short16 no_pairs_(void) { return (short16)(0); }
#ifdef __AVX2__
typedef char bytes_ __attribute__((vector_size(32)));
typedef short shorts_ __attribute__((vector_size(32)));
short16 add_dot4_(short16 sum, uint8 w, uint a) {
  return sum + __builtin_astype(__builtin_ia32_pmaddubsw256(__builtin_astype(w, bytes_), __builtin_astype((uint8)(a), bytes_)), short16);
}
int8 sum_pairs_(short16 sum) {
  return __builtin_astype(__builtin_ia32_pmaddwd256(__builtin_astype(sum, shorts_), __builtin_astype((short16)(1), shorts_)), int8);
}
#else
short16 add_dot4_(short16 sum, uint8 w, uint a) {
  const ushort16 v = as_ushort16(w);
  const short16 b = as_short16((uint8)(a));
  return sum + as_short16(v & (ushort)255) * ((b << (short)8) >> (short)8) + as_short16(v >> (ushort)8) * (b >> (short)8);
}
int8 sum_pairs_(short16 sum) {
  const int8 v = as_int8(sum);
  return ((v << 16) >> 16) + (v >> 16);
}
#endif)"},
    {.name = "signed_dots_", .form = DotForm::kPairs, .opencl = R"(short16 add_dot4_signed_(short16 sum, uint8 w, uint a) {
#ifdef __AVX2__
  const bytes_ v = __builtin_astype(w, bytes_);  // |w| · (a with the sign of w)
  const bytes_ b = __builtin_ia32_psignb256(__builtin_astype((uint8)(a), bytes_), v);
  return sum + __builtin_astype(__builtin_ia32_pmaddubsw256(__builtin_ia32_psignb256(v, v), b), short16);
#else
  const short16 v = as_short16(w);
  const short16 b = as_short16((uint8)(a));
  return sum + ((v << (short)8) >> (short)8) * ((b << (short)8) >> (short)8) + (v >> (short)8) * (b >> (short)8);
#endif
})"},
    // SPIR-V OpSDot (4450) and OpSUDot (4452); capabilities DotProduct, DotProductInput4x8BitPacked; the last operand is the packed format.
    {.name = "dots_", .form = DotForm::kSignedSigned, .opencl_extensions = "cl_khr_integer_dot_product", .opencl = R"(int4 no_pairs_(void) { return (int4)(0); }
int4 add_dot4_(int4 sum, uint4 w, uint a) {
  return sum + (int4)(dot_4x8packed_ss_int(a, w.x), dot_4x8packed_ss_int(a, w.y), dot_4x8packed_ss_int(a, w.z), dot_4x8packed_ss_int(a, w.w));
}
int4 sum_pairs_(int4 sum) { return sum; })", .glsl_extensions = "GL_EXT_spirv_intrinsics",
     .glsl = R"(spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6019, 6018], id = 4450)
int packed_dot_(uint a, uint b, spirv_literal int format);
ivec4 no_pairs_() { return ivec4(0); }
ivec4 add_dot4_(ivec4 sum, uvec4 w, uint a) {
  return sum + ivec4(packed_dot_(a, w.x, 0), packed_dot_(a, w.y, 0), packed_dot_(a, w.z, 0), packed_dot_(a, w.w, 0));
}
ivec4 sum_pairs_(ivec4 sum) { return sum; })"},
    {.name = "signed_dots_", .form = DotForm::kSignedSigned, .opencl = "int4 add_dot4_signed_(int4 sum, uint4 w, uint a) { return add_dot4_(sum, w, a); }",
     .glsl = "ivec4 add_dot4_signed_(ivec4 sum, uvec4 w, uint a) { return add_dot4_(sum, w, a); }"},
    {.name = "dots_", .form = DotForm::kSignedUnsigned, .opencl_extensions = "cl_khr_integer_dot_product", .opencl = R"(int4 no_pairs_(void) { return (int4)(0); }
int4 add_dot4_(int4 sum, uint4 w, uint a) {
  return sum + (int4)(dot_4x8packed_su_int(a, w.x), dot_4x8packed_su_int(a, w.y), dot_4x8packed_su_int(a, w.z), dot_4x8packed_su_int(a, w.w));
}
int4 sum_pairs_(int4 sum) { return sum; })", .glsl_extensions = "GL_EXT_spirv_intrinsics",
     .glsl = R"(spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6019, 6018], id = 4452)
int packed_dot_(uint a, uint b, spirv_literal int format);
ivec4 no_pairs_() { return ivec4(0); }
ivec4 add_dot4_(ivec4 sum, uvec4 w, uint a) {
  return sum + ivec4(packed_dot_(a, w.x, 0), packed_dot_(a, w.y, 0), packed_dot_(a, w.z, 0), packed_dot_(a, w.w, 0));
}
ivec4 sum_pairs_(ivec4 sum) { return sum; })"},
    // Signed bytes as w + 128, and 128 times the sum of a taken off.
    {.name = "signed_dots_", .form = DotForm::kSignedUnsigned,
     .opencl = "int4 add_dot4_signed_(int4 sum, uint4 w, uint a) { return add_dot4_(sum, w ^ 0x80808080u, a) - 128 * dot_4x8packed_su_int(a, 0x01010101u); }",
     .glsl = "ivec4 add_dot4_signed_(ivec4 sum, uvec4 w, uint a) { return add_dot4_(sum, w ^ 0x80808080u, a) - 128 * packed_dot_(a, 0x01010101u, 0); }"},
};
// clang-format on

// Names that one of the two targets keeps for itself (OpenCL C 1.2 section 6.1.9, GLSL 4.50 section 3.6), beyond the dialect's own words.
// clang-format off
inline constexpr std::string_view kReserved[] = {
    "active", "asm", "atomic_uint", "attribute", "auto", "break", "buffer", "case", "cast", "centroid", "char", "class", "coherent", "common", "complex",
    "const", "constant", "continue", "default", "discard", "do", "double", "else", "enum", "event_t", "extern", "external", "false", "filter", "fixed", "flat",
    "fn", "for", "global", "goto", "half", "highp", "if", "in", "inline", "inout", "input", "interface", "invariant", "kernel", "layout", "local", "long",
    "lowp", "main", "mediump", "namespace", "noinline", "noperspective", "out", "output", "packed", "params", "partition", "patch", "pipe", "precise", "precision",
    "private", "public", "quad", "readonly", "register", "resource", "restrict", "return", "rolled", "sample", "sampler", "sampler_t", "shared", "short",
    "signed", "size_t", "sizeof", "smooth", "static", "struct", "subroutine", "superp", "switch", "template", "this", "true", "typedef", "uchar", "ulong",
    "uniform", "union", "unroll", "unsigned", "ushort", "using", "varying", "volatile", "while", "writeonly"};
// clang-format on

// `pattern` with its holes filled.
inline std::string expand(std::string_view pattern, std::span<const std::string> args, int width) {
  std::string out;
  for (size_t at = 0; at < pattern.size();) {
    const size_t close = pattern[at] == '{' ? pattern.find('}', at) : std::string_view::npos;
    const std::string_view hole = close == std::string_view::npos ? std::string_view() : pattern.substr(at + 1, close - at - 1);
    const size_t index = hole.empty() ? args.size() : static_cast<size_t>(hole[0] - '0');
    if (hole == "W") {
      out += std::to_string(width);
    } else if (index < args.size() && hole.substr(1) == ".axis") {
      out += "xyz"[(args[index][0] - '0') % 3];
    } else if (index < args.size() && hole.size() == 1) {
      out += args[index];
    } else {
      out += pattern[at++];
      continue;
    }
    at = close + 1;
  }
  return out;
}

// How one target, with one choice of words, writes things down.
struct Spelling {
  Target target = Target::kOpenCL;
  WordChoice words;

  std::string_view choose(std::string_view opencl, std::string_view glsl) const { return target == Target::kOpenCL ? opencl : glsl; }
  std::string fill(std::string_view pattern, std::span<const std::string> args = {}) const { return expand(pattern, args, words.vector_width); }

  std::string type(Type type) const {
    const TypeRow& row = type_row(type);
    const bool half = words.half_calc && !row.half_opencl.empty();
    if (type.kind == Kind::kPairs && words.dot == DotForm::kPairs) return "short16";
    return fill(half ? choose(row.half_opencl, row.half_glsl) : choose(row.opencl, row.glsl));
  }
  // Vectors convert lane by lane; (float4)(x) would be a broadcast in OpenCL C.
  std::string convert(Type to, const std::string& text) const {
    if (target == Target::kGlsl) return type(to) + "(" + text + ")";
    return (to.scalar() ? "(" + type(to) + ")(" : "convert_" + type(to) + "(") + text + ")";
  }
  // A scalar becomes every lane, or one scalar each lane.
  std::string construct(Type to, const std::string& text) const {
    const std::string name = type(to);
    return (target == Target::kGlsl ? name : "(" + name + ")") + "(" + text + ")";
  }
};

}  // namespace tessera::codegen
