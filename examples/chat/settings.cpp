#include "settings.hpp"

#include <charconv>

#include "words.hpp"

namespace chat {
namespace {
using tessera::GenerateOptions;
using tessera::SamplerOptions;

template <class T>
std::string number_text(T value) {
  char text[64];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

template <class T>
bool parse_number(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

template <auto member, class Options>
auto& member_of(Options& options) {
  if constexpr (requires { options.*member; }) {
    return options.*member;
  } else {
    return options.sampler.*member;
  }
}

template <auto member>
constexpr Setting number(std::string_view key, std::string_view flags, std::string_view help) {
  return {key, flags, help, [](const GenerateOptions& options) { return number_text(member_of<member>(options)); },
          [](GenerateOptions& options, std::string_view text) { return parse_number(text, member_of<member>(options)); }};
}

std::string biases_text(const GenerateOptions& options) {
  std::string text;
  for (const tessera::LogitBias& entry : options.sampler.logit_bias) text += (text.empty() ? "" : ",") + number_text(entry.id) + "=" + number_text(entry.bias);
  return text.empty() ? "none" : text;
}

// "none", or ID=VALUE with commas between.
bool parse_biases(GenerateOptions& options, std::string_view text) {
  options.sampler.logit_bias.clear();
  if (text == "none") return true;
  while (true) {
    const std::string_view entry = text.substr(0, text.find(','));
    const size_t equals = entry.find('=');
    tessera::LogitBias bias;
    if (equals == std::string_view::npos || !parse_number(entry.substr(0, equals), bias.id) || !parse_number(entry.substr(equals + 1), bias.bias)) return false;
    options.sampler.logit_bias.push_back(bias);
    if (entry.size() == text.size()) return true;
    text.remove_prefix(entry.size() + 1);
  }
}

constexpr Setting kSettings[] = {
    number<&GenerateOptions::max_tokens>("max_tokens", "--max-tokens", "longest answer, in tokens"),
    number<&GenerateOptions::steps_at_once>("steps_at_once", "--steps-at-once", "1 to 8 tokens made before one is shown: fewer come more evenly, more leave the GPU less idle"),
    number<&GenerateOptions::sinks>("sinks", "--sinks", "go on when the context is full, behind so many of its first tokens and the newest; 0: the answer ends"),
    number<&SamplerOptions::temperature>("temperature", "--temp", "0: always the likeliest token; higher: more varied"),
    number<&SamplerOptions::top_k>("top_k", "--top-k", "choose among the k likeliest; 0: all"),
    number<&SamplerOptions::top_p>("top_p", "--top-p", "among the likeliest that have this probability together; 1: all"),
    number<&SamplerOptions::min_p>("min_p", "--min-p", "among those at least this probable, relative to the likeliest; 0: all"),
    number<&SamplerOptions::typical_p>("typical_p", "--typical", "among the least surprising that have this probability together; 1: all"),
    number<&SamplerOptions::repetition_penalty>("repeat_penalty", "--repeat-penalty", "divides the logits of recent tokens; 1: off"),
    number<&SamplerOptions::presence_penalty>("presence_penalty", "--presence-penalty", "taken off the logits of recent tokens; 0: off"),
    number<&SamplerOptions::frequency_penalty>("frequency_penalty", "--frequency-penalty", "the same for each time they occur; 0: off"),
    number<&SamplerOptions::repeat_last_n>("repeat_last_n", "--repeat-last-n", "recent: so many tokens; -1: the whole conversation"),
    {"logit_bias", "--logit-bias", "ID=VALUE, added to a token's logit (-inf: never); more with commas; none", biases_text, parse_biases},
    number<&SamplerOptions::seed>("seed", "--seed", "same seed, same text"),
};
}  // namespace

std::span<const Setting> settings() { return kSettings; }

tessera::Status set(GenerateOptions& options, std::string_view key, std::string_view value) {
  std::vector<std::string> keys;
  for (const Setting& setting : kSettings) {
    keys.emplace_back(setting.key);
    if (setting.key != key) continue;
    GenerateOptions changed = options;
    if (!setting.parse(changed, value))
      return tessera::fail(tessera::ErrorCode::kInvalidArgument, tessera::cat("'", tessera::escaped(value), "' is no value for ", key, " (", setting.help, ")"));
    TESSERA_TRY(changed.validate());
    options = std::move(changed);
    return {};
  }
  return tessera::fail(tessera::ErrorCode::kNotFound, tessera::cat("no setting '", tessera::escaped(key), "'", did_you_mean(key, keys), "; /set lists them"));
}

}  // namespace chat
