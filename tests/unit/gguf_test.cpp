// The container: every field that a file can lie about, and the sizes of tensor types against data that was not written here.
#include "tessera/model/gguf.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "gguf_builder.hpp"

namespace tessera {
namespace {

using test::exact;
using test::GgufBuilder;

GgufBuilder small_file() {
  GgufBuilder file;
  file.set("general.architecture", "none").set("some.number", 7u).set("some.flag", true).set("some.list", std::vector<std::string>{"a", "", "c"});
  file.add_tensor("first", {8, 2}, 0, std::string(64, 'x'));
  file.add_tensor("second", {32, 3}, 2);
  return file;
}

TEST(Gguf, ReadsValuesAndTensors) {
  GgufBuilder file = small_file();
  file.set_number<int8_t>("n.i8", GgufType::kI8, -5)
      .set_number<uint16_t>("n.u16", GgufType::kU16, 65535)
      .set_number<int16_t>("n.i16", GgufType::kI16, -300);
  file.set_number<int64_t>("n.i64", GgufType::kI64, -(int64_t{1} << 40))
      .set_number("n.f64", GgufType::kF64, 0.1)
      .set("n.f32", 0.5f)
      .set("ids", std::vector<int32_t>{4, -1});
  const auto bytes = exact(file.bytes());
  const auto gguf = Gguf::parse(bytes);
  ASSERT_TRUE(gguf) << gguf.error().message();
  EXPECT_EQ(gguf->version(), 3u);
  EXPECT_EQ(gguf->integer("some.number").value(), 7);
  EXPECT_EQ(gguf->integer("n.i8").value(), -5);
  EXPECT_EQ(gguf->integer("n.u16").value(), 65535);
  EXPECT_EQ(gguf->integer("n.i16").value(), -300);
  EXPECT_EQ(gguf->integer("n.i64").value(), -(int64_t{1} << 40));
  EXPECT_EQ(gguf->real("n.f64").value(), 0.1);
  EXPECT_EQ(gguf->real("n.f32").value(), 0.5);
  EXPECT_EQ(gguf->boolean("some.flag").value(), true);
  EXPECT_EQ(gguf->string("general.architecture").value(), "none");
  EXPECT_EQ(gguf->integer("absent", 9).value(), 9);
  EXPECT_EQ(gguf->array("absent", GgufType::kString).value(), nullptr);
  std::vector<std::string> strings;
  each_string(*gguf->array("some.list", GgufType::kString).value(), [&](std::string_view text) { strings.emplace_back(text); });
  EXPECT_EQ(strings, (std::vector<std::string>{"a", "", "c"}));

  const GgufTensor* second = gguf->find_tensor("second");
  ASSERT_TRUE(second);
  EXPECT_EQ(second->type->name, "Q4_0");
  EXPECT_EQ(second->dims, (std::array<uint64_t, 4>{32, 3, 1, 1}));
  EXPECT_EQ(second->bytes.size(), 54u);
  EXPECT_EQ(second->bytes.data() + second->bytes.size(), bytes.data() + bytes.size());
  EXPECT_EQ(gguf->find_tensor("first")->bytes[0], std::byte{'x'});
  EXPECT_EQ(gguf->find_tensor("third"), nullptr);
}

TEST(Gguf, AccessorsNameKeyAndTypes) {
  const std::string bytes = small_file().set_number("huge", GgufType::kU64, uint64_t{1} << 63).bytes();
  const auto gguf = Gguf::parse(std::as_bytes(std::span(bytes)));
  ASSERT_TRUE(gguf);
  const auto message = [](const auto& result) { return result ? std::string("no error") : result.error().message(); };
  EXPECT_EQ(message(gguf->integer("general.architecture")), "key 'general.architecture' has type string; expected an integer");
  EXPECT_EQ(message(gguf->string("some.list")), "key 'some.list' has type array of string; expected string");
  EXPECT_EQ(message(gguf->real("some.number")), "key 'some.number' has type u32; expected a floating-point number");
  EXPECT_EQ(message(gguf->boolean("some.number")), "key 'some.number' has type u32; expected bool");
  EXPECT_EQ(message(gguf->array("some.list", GgufType::kI32)), "key 'some.list' has type array of string; expected array of i32");
  EXPECT_NE(message(gguf->integer("huge")).find("more than 63 bits"), std::string::npos);
  EXPECT_NE(message(gguf->integer("gone")).find("key 'gone' is missing"), std::string::npos);
}

TEST(Gguf, Version2AndOtherAlignments) {
  for (const uint32_t alignment : {8u, 64u, 4096u, 65536u}) {
    GgufBuilder file = small_file().set("general.alignment", alignment);
    file.version = 2;
    file.alignment = alignment;
    const std::string bytes = file.bytes();
    const auto gguf = Gguf::parse(std::as_bytes(std::span(bytes)));
    ASSERT_TRUE(gguf) << gguf.error().message();
    EXPECT_EQ(gguf->find_tensor("first")->bytes[63], std::byte{'x'}) << alignment;
  }
}

TEST(Gguf, TensorTypeSizesAgreeWithPublishedOnes) {
  const auto index = nlohmann::json::parse(std::ifstream(TESSERA_SOURCE_DIR "/tests/model/conform/dequant/index.json"));
  ASSERT_GT(index.size(), 20u);
  for (const auto& [name, facts] : index.items()) {
    const GgmlType* type = find_ggml_type(facts["ggml_type"].get<uint32_t>());
    ASSERT_TRUE(type) << name;
    EXPECT_EQ(type->name, name);
    EXPECT_EQ(type->block, facts["block"].get<uint32_t>()) << name;
    EXPECT_EQ(type->block_bytes, facts["bytes"].get<uint32_t>()) << name;
  }
  for (const uint32_t withdrawn : {4u, 5u, 31u, 32u, 33u, 36u, 37u, 38u, 255u, 0xffffffffu})
    EXPECT_EQ(find_ggml_type(withdrawn), nullptr) << withdrawn;
}

struct Lie {
  const char* name;
  void (*tell)(GgufBuilder&);
  ErrorCode code;
  const char* says;  // a part of the message
};

constexpr uint64_t kTop = uint64_t{1} << 63;
const auto kMalformed = ErrorCode::kMalformed;
const auto kUnsupported = ErrorCode::kUnsupported;

std::string raw_array(uint32_t element, uint64_t count, std::string_view elements = {}) {
  std::string payload;
  test::append(payload, element);
  test::append(payload, count);
  return payload + std::string(elements);
}

const Lie kLies[] = {
    {"bad magic", [](GgufBuilder& f) { f.magic = "NOPE"; }, kMalformed, "starts with 'NOPE'"},
    {"magic with control bytes", [](GgufBuilder& f) { f.magic = "\x1b[2J"; }, kMalformed, "\\x1b[2J"},
    {"safetensors", [](GgufBuilder& f) { f.magic = std::string("\x10\0\0\0\0\0\0\0{\"a\"", 12); }, kUnsupported, ".safetensors"},
    {"zip", [](GgufBuilder& f) { f.magic = "PK\x03\x04"; }, kUnsupported, "PyTorch"},
    {"web page", [](GgufBuilder& f) { f.magic = "<!DOCTYPE html>"; }, kUnsupported, "web page"},
    {"lfs pointer", [](GgufBuilder& f) { f.magic = "version https://git-lfs.github.com/spec/v1"; }, kUnsupported, "git lfs pull"},
    {"big-endian magic", [](GgufBuilder& f) { f.magic = "FUGG"; }, kUnsupported, "big-endian"},
    {"big-endian version", [](GgufBuilder& f) { f.version = 0x03000000; }, kUnsupported, "big-endian"},
    {"version 0", [](GgufBuilder& f) { f.version = 0; }, kUnsupported, "version 0"},
    {"version 1", [](GgufBuilder& f) { f.version = 1; }, kUnsupported, "version 1"},
    {"version 4", [](GgufBuilder& f) { f.version = 4; }, kUnsupported, "version 4"},
    {"version 2^31", [](GgufBuilder& f) { f.version = 1u << 31; }, kUnsupported, "version 2147483648"},
    {"key count 2^64-1", [](GgufBuilder& f) { f.key_count = ~uint64_t{0}; }, kMalformed, "claims 18446744073709551615 keys"},
    {"one key too many", [](GgufBuilder& f) { f.key_count = f.entries.size() + 1; }, kMalformed, ""},
    {"one key too few", [](GgufBuilder& f) { f.key_count = f.entries.size() - 1; }, kMalformed, ""},
    {"tensor count 2^64-1", [](GgufBuilder& f) { f.tensor_count = ~uint64_t{0}; }, kMalformed, "claims 18446744073709551615 tensors"},
    {"tensor count -1 as 32 bits", [](GgufBuilder& f) { f.tensor_count = 0xffffffffu; }, kMalformed, "tensors"},
    {"too many keys",
     [](GgufBuilder& f) {
       for (int i = 0; i < 16400; ++i) f.entries.push_back({"k" + std::to_string(i), 7, std::string(1, '\0')});
     },
     ErrorCode::kLimit, "at most 16384"},
    {"too many tensors",
     [](GgufBuilder& f) {
       for (int i = 0; i < 16400; ++i) f.add_tensor("t" + std::to_string(i), {1}, 0);
     },
     ErrorCode::kLimit, "at most 16384"},
    {"key length 2^63", [](GgufBuilder& f) { f.entries[1].key_length = kTop; }, kMalformed, "a key at byte"},
    {"key length 2^64-1", [](GgufBuilder& f) { f.entries[1].key_length = ~uint64_t{0}; }, kMalformed, "a key at byte"},
    {"empty key", [](GgufBuilder& f) { f.entries[1].key = ""; }, kMalformed, "a key is empty"},
    {"key with NUL", [](GgufBuilder& f) { f.entries[1].key = std::string("a\0b", 3); }, kMalformed, "'a\\x00b'"},
    {"key with invalid UTF-8", [](GgufBuilder& f) { f.entries[1].key = "a\xff"; }, kMalformed, "'a\\xff'"},
    {"key with DEL", [](GgufBuilder& f) { f.entries[1].key = "a\x7f"; }, kMalformed, "'a\\x7f'"},
    {"key with an escape sequence", [](GgufBuilder& f) { f.entries[1].key = "\x1b]0;x"; }, kMalformed, "\\x1b]0;x"},
    {"key of 70,000 bytes", [](GgufBuilder& f) { f.entries[1].key = std::string(70000, 'k'); }, kMalformed, "has 70000 bytes"},
    {"duplicate key", [](GgufBuilder& f) { f.entries.push_back(f.entries[1]); }, kMalformed, "'some.number' appears twice"},
    {"value type 13", [](GgufBuilder& f) { f.entries[1].type = 13; }, kMalformed, "key 'some.number': value type 13"},
    {"value type 255", [](GgufBuilder& f) { f.entries[1].type = 255; }, kMalformed, "value type 255"},
    {"value type -1", [](GgufBuilder& f) { f.entries[1].type = 0xffffffffu; }, kMalformed, "value type 4294967295"},
    {"array element type -1", [](GgufBuilder& f) { f.set_raw("a", 9, raw_array(0xffffffffu, 0)); }, kMalformed, "value type 4294967295"},
    {"array of array", [](GgufBuilder& f) { f.set_raw("a", 9, raw_array(9, 1, raw_array(4, 0))); }, kUnsupported, "key 'a': arrays of arrays"},
    {"arrays nested 10,000 deep",
     [](GgufBuilder& f) {
       std::string payload;
       for (int i = 0; i < 10000; ++i) payload += raw_array(9, 1);
       f.set_raw("a", 9, payload);
     },
     kUnsupported, "arrays of arrays"},
    {"array count 2^61", [](GgufBuilder& f) { f.set_raw("a", 9, raw_array(10, uint64_t{1} << 61)); }, kMalformed,
     "key 'a': claims 2305843009213693952 elements"},
    {"array count 2^40", [](GgufBuilder& f) { f.set_raw("a", 9, raw_array(0, uint64_t{1} << 40)); }, kMalformed, "needs 1099511627776 bytes"},
    {"string array count 2^61", [](GgufBuilder& f) { f.set_raw("a", 9, raw_array(8, uint64_t{1} << 61)); }, kMalformed,
     "claims 2305843009213693952 strings"},
    {"string array one short",
     [](GgufBuilder& f) {
       f.set_raw("a", 9, raw_array(8, 30, std::string(29 * 8, '\0')));
       f.tensors.clear();
       f.alignment = 1;
     },
     kMalformed, "claims 30 strings"},
    {"string array with a string past the end",
     [](GgufBuilder& f) {
       std::string p;
       test::append_string(p, "abc");
       test::append_string(p, "abc", 4);
       f.set_raw("a", 9, raw_array(8, 2, p));
       f.tensors.clear();
       f.alignment = 1;
     },
     kMalformed, "a string of an array"},
    {"string of 4 GiB",
     [](GgufBuilder& f) {
       std::string p;
       test::append_string(p, "x", uint64_t{4} << 30);
       f.set_raw("a", 8, p);
     },
     kMalformed, "needs 4294967296 bytes"},
    {"string past the end by one",
     [](GgufBuilder& f) {
       std::string p;
       test::append_string(p, "abc", 4);
       f.tensors.clear();
       f.entries.clear();
       f.set_raw("a", 8, p);
       f.alignment = 1;
     },
     kMalformed, "needs 4 bytes"},
    {"bool of 2", [](GgufBuilder& f) { f.set_raw("some.flag", 7, "\x02"); }, kMalformed, "key 'some.flag': a bool has the value 2"},
    {"array with a bool of 2", [](GgufBuilder& f) { f.set_raw("a", 9, raw_array(7, 2, "\x01\x02")); }, kMalformed, "a bool has the value 2"},
    {"alignment 0", [](GgufBuilder& f) { f.set("general.alignment", 0u); }, kMalformed, "'general.alignment' is 0"},
    {"alignment 1", [](GgufBuilder& f) { f.set("general.alignment", 1u); }, kMalformed, "'general.alignment' is 1"},
    {"alignment 3", [](GgufBuilder& f) { f.set("general.alignment", 3u); }, kMalformed, "'general.alignment' is 3"},
    {"alignment 48", [](GgufBuilder& f) { f.set("general.alignment", 48u); }, kMalformed, "power of two"},
    {"alignment 2^31", [](GgufBuilder& f) { f.set("general.alignment", 1u << 31); }, kMalformed, "2147483648"},
    {"alignment as u64", [](GgufBuilder& f) { f.set("general.alignment", uint64_t{32}); }, kMalformed, "must be a single u32"},
    {"alignment as string", [](GgufBuilder& f) { f.set("general.alignment", "32"); }, kMalformed, "must be a single u32"},
    {"alignment other than the data's",
     [](GgufBuilder& f) {
       f.set("general.alignment", 4096u);
       f.add_tensor("third", {8192}, 0);
     },
     kMalformed, "not a multiple of the alignment 4096"},
    {"no dimensions", [](GgufBuilder& f) { f.tensors[0].n_dims = 0; }, kMalformed, "tensor 'first': it has 0 dimensions"},
    {"five dimensions",
     [](GgufBuilder& f) {
       f.tensors[0].dims = {1, 1, 1, 1, 1};
     },
     kMalformed, "has 5 dimensions"},
    {"2^32-1 dimensions", [](GgufBuilder& f) { f.tensors[0].n_dims = 0xffffffffu; }, kMalformed, "has 4294967295 dimensions"},
    {"dimension 0",
     [](GgufBuilder& f) {
       f.tensors[0].dims = {8, 0};
     },
     kMalformed, "shape [8, 0] has a dimension of 0"},
    {"first dimension 0",
     [](GgufBuilder& f) {
       f.tensors[0].dims = {0, 8};
     },
     kMalformed, "has a dimension of 0"},
    {"dimension -1",
     [](GgufBuilder& f) {
       f.tensors[0].dims = {8, ~uint64_t{0}};
     },
     kMalformed, "more elements"},
    {"dimension 2^63", [](GgufBuilder& f) { f.tensors[0].dims = {kTop}; }, kMalformed, "more elements"},
    {"product of dimensions wraps to 0",
     [](GgufBuilder& f) {
       f.tensors[0].dims = {uint64_t{1} << 32, uint64_t{1} << 32};
     },
     kMalformed, "more elements"},
    {"product wraps to a small number",
     [](GgufBuilder& f) {
       f.tensors[0].dims = {(uint64_t{1} << 32) + 8, uint64_t{1} << 32, 4, 4};
     },
     kMalformed, "more elements"},
    {"elements fit, bytes do not", [](GgufBuilder& f) { f.tensors[0].dims = {kTop - 1}; }, kMalformed, "more bytes than 64 bits"},
    {"bytes wrap to 16", [](GgufBuilder& f) { f.tensors[0].dims = {(uint64_t{1} << 62) + 4}; }, kMalformed, "more bytes than 64 bits"},
    // Two sizes whose padded sum wraps around 64 bits (the pattern of CVE-2026-27940).
    {"sum of sizes wraps",
     [](GgufBuilder& f) {
       for (auto& t : f.tensors) t.dims = {uint64_t{0x7fffffffffffffc0}}, t.type = 24;
     },
     kMalformed, "but the file has"},
    {"sum of sizes wraps at true offsets",
     [](GgufBuilder& f) {
       for (auto& t : f.tensors) t.dims = {uint64_t{0x7fffffffffffffc0}}, t.type = 24;
       f.tensors[1].offset = 0x7fffffffffffffc0;
     },
     kMalformed, "tensor 'first' ends at byte"},
    {"offset not aligned", [](GgufBuilder& f) { f.tensors[0].offset = 4; }, kMalformed, "tensor 'first' starts at offset 4"},
    {"offset past the end", [](GgufBuilder& f) { f.tensors[1].offset = 1 << 20; }, kMalformed, "the download is probably incomplete"},
    {"offset 2^64-32", [](GgufBuilder& f) { f.tensors[1].offset = ~uint64_t{31}; }, kMalformed, "does not fit in 64 bits"},
    {"offset wraps only with the size",
     [](GgufBuilder& f) {
       f.tensors[1].offset = ~uint64_t{511};
       f.tensors[1].dims = {32, 100};
     },
     kMalformed, "does not fit in 64 bits"},
    {"tensors overlap", [](GgufBuilder& f) { f.tensors[1].offset = 32; }, kMalformed, "tensors 'first' and 'second' overlap"},
    {"tensors coincide", [](GgufBuilder& f) { f.tensors[1].offset = 0; }, kMalformed, "overlap"},
    {"duplicate tensor", [](GgufBuilder& f) { f.tensors[1].name = "first"; }, kMalformed, "tensor 'first' appears twice"},
    {"empty tensor name", [](GgufBuilder& f) { f.tensors[1].name = ""; }, kMalformed, "a tensor name is empty"},
    {"tensor name of 65 bytes", [](GgufBuilder& f) { f.tensors[1].name = std::string(65, 'n'); }, kMalformed, "a tensor name has 65 bytes"},
    {"tensor name of 10 MiB", [](GgufBuilder& f) { f.tensors[1].name = std::string(10 << 20, 'n'); }, kMalformed, "has 10485760 bytes"},
    {"tensor name length 2^63", [](GgufBuilder& f) { f.tensors[1].name_length = kTop; }, kMalformed, "a tensor name at byte"},
    {"tensor name with invalid UTF-8", [](GgufBuilder& f) { f.tensors[1].name = "w\xc0\x80"; }, kMalformed, "'w\\xc0\\x80'"},
    {"withdrawn tensor type", [](GgufBuilder& f) { f.tensors[1].type = 31; }, kUnsupported, "tensor 'second': tensor type 31"},
    {"tensor type -1", [](GgufBuilder& f) { f.tensors[1].type = 0xffffffffu; }, kUnsupported, "tensor type 4294967295"},
    {"row is no whole number of blocks",
     [](GgufBuilder& f) {
       f.tensors[1].dims = {48, 2};
     },
     kMalformed, "rows have 48 values, but type Q4_0 stores blocks of 32"},
    {"part of a split model", [](GgufBuilder& f) { f.set_number("split.count", GgufType::kU16, uint16_t{3}); }, kUnsupported, "split.count is 3"},
    {"split count of a wrong type", [](GgufBuilder& f) { f.set("split.count", "3"); }, kMalformed, "'split.count' has type string"},
};

TEST(Gguf, EveryLieIsATypedErrorThatSaysWhat) {
  for (const Lie& lie : kLies) {
    GgufBuilder file = small_file();
    lie.tell(file);
    const auto gguf = Gguf::parse(exact(file.bytes()));
    ASSERT_FALSE(gguf) << lie.name;
    EXPECT_EQ(name_of(gguf.error().code()), name_of(lie.code)) << lie.name << ": " << gguf.error().message();
    EXPECT_NE(gguf.error().message().find(lie.says), std::string::npos) << lie.name << ": " << gguf.error().message();
    EXPECT_LT(gguf.error().message().size(), 500u) << lie.name;
  }
}

TEST(Gguf, ASplitCountOfOneIsAWholeFile) {
  const std::string bytes = small_file().set_number("split.count", GgufType::kU16, uint16_t{1}).bytes();
  EXPECT_TRUE(Gguf::parse(std::as_bytes(std::span(bytes))));
}

TEST(Gguf, EveryTruncationIsAnError) {
  const std::string whole = small_file().bytes();
  ASSERT_TRUE(Gguf::parse(exact(whole)));
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto gguf = Gguf::parse(exact(std::string_view(whole).substr(0, size)));
    ASSERT_FALSE(gguf) << "the first " << size << " bytes were accepted";
    EXPECT_EQ(gguf.error().code(), ErrorCode::kMalformed) << size << ": " << gguf.error().message();
  }
}

}  // namespace
}  // namespace tessera
