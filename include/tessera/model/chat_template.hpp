// Chat prompts from the template that a model file carries. The prompt is a list of segments so that message text is never read as control
// tokens.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/base/status.hpp"
#include "tessera/model/prompt.hpp"

namespace tessera {

struct ChatMessage {
  std::string role;     // "system", "user", "assistant"
  std::string content;
};

// Follows the part of Jinja that ChatML-type templates are written in, with the settings of Hugging Face transformers (trim_blocks,
// lstrip_blocks): one loop over `messages` at a time; if/elif/else with ==, !=, and, or, not; printing of string literals and a message's
// role and content joined by + or ~, the latter with `| trim`; loop.first, loop.last, messages[0], messages[-1], add_generation_prompt.
// The kind of template is open: whatever is written in these terms is rendered as Jinja renders it. Cheap to copy; const calls may run at once.
class ChatTemplate {
 public:
  // `source` is the Jinja text of the model file. kUnsupported names the first construct outside the above as line:column.
  static Result<ChatTemplate> create(std::string_view source);
  // A built-in template: "chatml". kNotFound lists the names.
  static Result<ChatTemplate> named(std::string_view name);

  // Neighbouring segments differ in `scaffold`; none is empty. A message that does not exist (messages[0] of none) reads as empty text.
  std::vector<PromptSegment> render(const std::vector<ChatMessage>& messages, bool add_generation_prompt) const;
  std::string render_text(const std::vector<ChatMessage>& messages, bool add_generation_prompt) const;

 private:
  struct Program;
  explicit ChatTemplate(std::shared_ptr<const Program> program) : program_(std::move(program)) {}
  std::shared_ptr<const Program> program_;
};

}  // namespace tessera
