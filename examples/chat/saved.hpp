// JSON in and out: saved conversations, and the result of one question.
#pragma once
#include <string>
#include <vector>

#include "tessera/engine/session.hpp"

namespace chat {

struct SavedChat {
  std::string model;
  tessera::GenerateOptions generate;
  std::vector<tessera::ChatMessage> messages;
};

// Format "tessera-chat", version 1: {"format", "version", "model", "settings": {key: value}, "stop": [text], "messages": [{"role", "content"}]}.
// Bytes that are not UTF-8 become U+FFFD. Errors as write_text_file().
tessera::Status save_chat(const std::string& path, const SavedChat& saved, bool replace);
// Errors as read_text_file(), and kMalformed: what is wrong where. Settings that the file leaves out have their defaults.
tessera::Result<SavedChat> load_chat(const std::string& path);

// One object on one line: text, stop_reason, tokens, prompt_tokens, first_token_seconds, tokens_per_second, model, device, settings.
std::string reply_json(const tessera::Reply& reply, const tessera::Model& model, const tessera::GenerateOptions& generate);
// {"error": {"code", "message"}}
std::string error_json(const tessera::Error& error);

}  // namespace chat
