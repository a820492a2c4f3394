#include "saved.hpp"

#include <nlohmann/json.hpp>

#include "files.hpp"
#include "settings.hpp"

namespace chat {
namespace {
using Json = nlohmann::ordered_json;
using tessera::cat;
using tessera::ErrorCode;
using tessera::fail;

// nlohmann's own recursion (copying, printing) follows the nesting of its input, so that depth is bounded while parsing.
constexpr int kMaxDepth = 16;

std::string dump(const Json& json, int indent) { return json.dump(indent, ' ', false, Json::error_handler_t::replace); }

// A setting's text is a number where JSON has that number ("-inf" is none).
Json settings_json(const tessera::GenerateOptions& generate) {
  Json out = Json::object();
  for (const Setting& setting : settings()) {
    const std::string text = setting.text(generate);
    const Json number = Json::parse(text, nullptr, false);
    out[std::string(setting.key)] = number.is_number() ? number : Json(text);
  }
  return out;
}

tessera::Result<Json> parse(const std::string& text) {
  bool too_deep = false;
  const auto guard = [&too_deep](int depth, Json::parse_event_t, Json&) {
    too_deep = too_deep || depth > kMaxDepth;
    return !too_deep;
  };
  Json json = Json::parse(text, guard, /*allow_exceptions=*/false);
  if (too_deep) return fail(ErrorCode::kMalformed, cat("JSON nested deeper than ", kMaxDepth));
  if (json.is_discarded() || !json.is_object()) return fail(ErrorCode::kMalformed, "no JSON object");
  return json;
}

// The text of member `key`; kMalformed when it is no text.
tessera::Result<std::string> text_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string()) return fail(ErrorCode::kMalformed, cat("'", key, "' must be a text"));
  return found->get<std::string>();
}

tessera::Status read_settings(const Json& object, tessera::GenerateOptions& generate) {
  if (!object.is_object()) return fail(ErrorCode::kMalformed, "'settings' must be an object");
  for (const auto& [key, value] : object.items()) {
    if (!value.is_string() && !value.is_number()) return fail(ErrorCode::kMalformed, cat("settings: '", tessera::escaped(key), "' must be a number or a text"));
    if (auto done = set(generate, key, value.is_string() ? value.get<std::string>() : value.dump()); !done) return fail(std::move(done).error().within("settings"));
  }
  return {};
}

tessera::Status read_messages(const Json& list, std::vector<tessera::ChatMessage>& messages) {
  if (!list.is_array()) return fail(ErrorCode::kMalformed, "'messages' must be an array");
  for (const Json& entry : list) {
    const std::string where = cat("message ", messages.size());
    if (!entry.is_object()) return fail(ErrorCode::kMalformed, where + " must be an object");
    auto role = text_of(entry, "role"), content = text_of(entry, "content");
    if (!role || !content) return fail(std::move(role ? content : role).error().within(where));
    messages.push_back({std::move(*role), std::move(*content)});
  }
  return {};
}

tessera::Result<SavedChat> read_chat(const std::string& text) {
  TESSERA_ASSIGN(const Json json, parse(text));
  SavedChat saved;
  TESSERA_ASSIGN(const std::string format, text_of(json, "format"));
  if (format != "tessera-chat") return fail(ErrorCode::kMalformed, cat("'format' is '", tessera::escaped(format), "'; expected 'tessera-chat'"));
  if (!json.contains("version") || json["version"] != 1) return fail(ErrorCode::kUnsupported, "'version' is not 1, the only one known here");
  TESSERA_ASSIGN(saved.model, text_of(json, "model"));
  if (json.contains("settings")) TESSERA_TRY(read_settings(json["settings"], saved.generate));
  if (json.contains("stop")) {
    if (!json["stop"].is_array()) return fail(ErrorCode::kMalformed, "'stop' must be an array");
    for (const Json& entry : json["stop"]) {
      if (!entry.is_string()) return fail(ErrorCode::kMalformed, "'stop' must hold texts");
      saved.generate.stop.push_back(entry.get<std::string>());
    }
  }
  if (!json.contains("messages")) return fail(ErrorCode::kMalformed, "'messages' is missing");
  TESSERA_TRY(read_messages(json["messages"], saved.messages));
  return saved;
}

}  // namespace

tessera::Status save_chat(const std::string& path, const SavedChat& saved, bool replace) {
  Json json = {{"format", "tessera-chat"}, {"version", 1}, {"model", saved.model}, {"settings", settings_json(saved.generate)}, {"stop", saved.generate.stop}, {"messages", Json::array()}};
  for (const tessera::ChatMessage& message : saved.messages) json["messages"].push_back({{"role", message.role}, {"content", message.content}});
  return write_text_file(path, dump(json, 2) + "\n", replace);
}

tessera::Result<SavedChat> load_chat(const std::string& path) {
  TESSERA_ASSIGN(const std::string text, read_text_file(path));
  auto saved = read_chat(text);
  if (!saved) return fail(std::move(saved).error().within(path));
  return saved;
}

std::string reply_json(const tessera::Reply& reply, const tessera::Model& model, const tessera::GenerateOptions& generate) {
  Json json = {{"text", reply.text},
                                     {"stop_reason", std::string(name_of(reply.stop_reason))},
                                     {"tokens", reply.tokens},
                                     {"prompt_tokens", reply.prompt_tokens},
                                     {"first_token_seconds", reply.first_token_seconds},
                                     {"tokens_per_second", reply.tokens_per_second},
                                     {"model", model.config().name},
                                     {"device", model.device().info().name},
                                     {"settings", settings_json(generate)}};
  if (generate.log_probabilities) json["log_probabilities"] = reply.log_probabilities;
  return dump(json, -1);
}

std::string error_json(const tessera::Error& error) { return dump({{"error", {{"code", std::string(name_of(error.code()))}, {"message", error.message()}}}}, -1); }

}  // namespace chat
