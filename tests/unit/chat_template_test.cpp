// Rendering against Jinja2's own: tests/data/tokenizers/README.md.
#include "tessera/model/chat_template.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

namespace tessera {
namespace {

const std::string kBody = "{% for message in messages %}{{ message['content'] }}{% endfor %}";

const nlohmann::json& data() {
  static const nlohmann::json parsed = nlohmann::json::parse(std::ifstream(TESSERA_TEST_DATA "/chat_templates.json"));
  return parsed;
}

std::vector<ChatMessage> messages_of(const nlohmann::json& rows) {
  std::vector<ChatMessage> messages;
  for (const auto& row : rows) messages.push_back({row["role"], row["content"]});
  return messages;
}

TEST(ChatTemplate, RendersAsJinja) {
  ASSERT_GT(data()["cases"].size(), 100u);
  for (const auto& row : data()["cases"]) {
    const auto made = ChatTemplate::create(data()["templates"][row["template"].get<std::string>()].get<std::string>());
    ASSERT_TRUE(made) << row["template"] << ": " << made.error().message();
    EXPECT_EQ(made->render_text(messages_of(row["messages"]), row["add_generation_prompt"]), row["text"].get<std::string>()) << row;
  }
}

TEST(ChatTemplate, BuiltInChatmlIsThePlainTemplate) {
  const auto made = ChatTemplate::named("chatml");
  ASSERT_TRUE(made) << made.error().message();
  int compared = 0;
  for (const auto& row : data()["cases"]) {
    if (row["template"] != "plain") continue;
    EXPECT_EQ(made->render_text(messages_of(row["messages"]), row["add_generation_prompt"]), row["text"].get<std::string>());
    ++compared;
  }
  EXPECT_GT(compared, 20);
  const auto unknown = ChatTemplate::named("vicuna");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code(), ErrorCode::kNotFound);
  EXPECT_NE(unknown.error().message().find("chatml"), std::string::npos);
}

TEST(ChatTemplate, OnlyTheTemplatesOwnTextIsScaffold) {
  const auto made = ChatTemplate::create(data()["templates"]["smollm2"].get<std::string>());
  ASSERT_TRUE(made);
  const std::vector<PromptSegment> expected = {
      {"<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>", true},
      {"us<|im_start|>er", false}, {"\n", true}, {"<|im_end|>\n", false}, {"<|im_end|>\n<|im_start|>assistant\n", true}};
  EXPECT_EQ(made->render({{"us<|im_start|>er", "<|im_end|>\n"}}, true), expected);
}

TEST(ChatTemplate, JinjaInAMessageStaysText) {
  const auto made = ChatTemplate::create(kBody);
  ASSERT_TRUE(made);
  EXPECT_EQ(made->render({{"user", "{{ messages }}{% for %}"}}, false), (std::vector<PromptSegment>{{"{{ messages }}{% for %}", false}}));
}

TEST(ChatTemplate, TenThousandMessages) {
  const auto made = ChatTemplate::named("chatml");
  ASSERT_TRUE(made);
  const std::vector<ChatMessage> messages(10000, {"user", "x"});
  EXPECT_EQ(made->render_text(messages, false).size(), 10000 * std::string("<|im_start|>user\nx<|im_end|>\n").size());
  EXPECT_EQ(made->render(messages, false).size(), 4 * 10000 + 1u);
}

struct Refused {
  std::string source;
  std::string where;    // line:column
  std::string what;
};

TEST(ChatTemplate, SaysWhatItDoesNotFollowAndWhere) {
  const Refused rows[] = {
      {"", "1:1", "never prints"},
      {"just text", "1:1", "never prints"},
      {"{% for m in messages %}{{ m.role }}{% endfor %}", "1:1", "never prints"},
      {"{{ bos_token }}" + kBody, "1:4", "'bos_token'"},
      {kBody + "\n{{ x }}", "2:4", "'x'"},
      {"{% macro a() %}{% endmacro %}", "1:4", "'macro'"},
      {"{% if tools %}{% endif %}", "1:7", "'tools'"},
      {"{% for m in messages[1:] %}{% endfor %}", "1:21", "'['"},
      {"{% for i in range(1000000000) %}{% endfor %}", "1:13", "'range'"},
      {"{% for m in messages %}\n  {% for n in messages %}{% endfor %}{% endfor %}", "2:10", "'n'"},
      {"{% for m in messages %}{{ m.content | upper }}{% endfor %}", "1:39", "'upper'"},
      {"{% for m in messages %}{{ m['name'] }}{% endfor %}", "1:29", "'name'"},
      {"{% for m in messages %}{{ m.content * 3 }}{% endfor %}", "1:37", "'*'"},
      {"{% for m in messages %}{{ m.content == 'x' }}{% endfor %}", "1:27", "condition"},
      {"{% for m in messages %}{{ m.content + loop.first }}{% endfor %}", "1:39", "not text"},
      {"{% for m in messages %}{{ m.content }}{% if m.role == true %}{% endif %}{% endfor %}", "1:55", "not text"},
      {"{% for m in messages %}{{ loop.index0 }}{% endfor %}", "1:32", "'index0'"},
      {"{% for m in messages %}{% set add_generation_prompt = true %}{% endfor %}", "1:31", "'add_generation_prompt'"},
      {"{% for m in messages %}{{ m.content }}", "1:39", "the end of the text"},
      {"{% for m in messages %}{{ m.content }}{% endif %}", "1:42", "'endif'"},
      {kBody + "{% endfor %}", "1:66", "'{%'"},
      {kBody + "{% if true %}{% else %}{% elif true %}{% endif %}", "1:92", "'elif'"},
      {"{{ 'a' if true else 'b' }}", "1:8", "'if'"},
      {"{{ messages[7].content }}", "1:13", "'7'"},
      {"{{ 'open", "1:4", "string that is never closed"},
      {"{{ 'a'", "1:1", "tag that is never closed"},
      {"a{# b", "1:2", "comment that is never closed"},
      {"{{ '\\q' }}", "1:5", "escape '\\q'"},
      {"{{ \"\\", "1:5", "escape"},
      {"{{", "1:1", "tag that is never closed"},
      {"{{ raise_exception('no') }}", "1:4", "'raise_exception'"},
  };
  for (const Refused& row : rows) {
    const auto made = ChatTemplate::create(row.source);
    ASSERT_FALSE(made) << row.source;
    EXPECT_EQ(made.error().code(), ErrorCode::kUnsupported);
    const std::string& message = made.error().message();
    EXPECT_NE(message.find("chat template " + row.where + ": "), std::string::npos) << row.source << "\n" << message;
    EXPECT_NE(message.find(row.what), std::string::npos) << row.source << "\n" << message;
    EXPECT_NE(message.find("--chat-template chatml"), std::string::npos);
  }
}

std::string repeated(std::string_view text, size_t times) {
  std::string out;
  while (times-- > 0) out += text;
  return out;
}

TEST(ChatTemplate, DepthAndSizeAreBounded) {
  for (const std::string& deep : {"{{ " + repeated("(", 10000), repeated("{% if true %}", 4000), "{% if " + repeated("not (", 5000)}) {
    const auto made = ChatTemplate::create(deep);
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code(), ErrorCode::kUnsupported);
  }
  const auto long_one = ChatTemplate::create(repeated("x", 100000));
  ASSERT_FALSE(long_one);
  EXPECT_EQ(long_one.error().code(), ErrorCode::kLimit);
  // Long but flat is fine.
  const std::string condition = "{% if " + repeated("not ", 5000) + "true %}{% elif true %}" + repeated("{% elif true %}", 500) + "{% endif %}";
  const auto flat = ChatTemplate::create(condition + kBody);
  ASSERT_TRUE(flat) << flat.error().message();
  EXPECT_EQ(flat->render_text({{"user", "hi"}}, false), "hi");
}

// Any cut of a good template gives an error or a template, and never more than that.
TEST(ChatTemplate, EveryPrefixIsReadOrRefused) {
  for (const auto& source : data()["templates"]) {
    const std::string text = source;
    for (size_t n = 0; n <= text.size(); ++n) {
      const auto made = ChatTemplate::create(std::string_view(text).substr(0, n));
      EXPECT_TRUE(!made || !made->render_text({{"system", "brief"}, {"user", "hello"}}, true).empty());
    }
  }
}

}  // namespace
}  // namespace tessera
