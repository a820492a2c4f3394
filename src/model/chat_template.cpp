#include "tessera/model/chat_template.hpp"

#include <algorithm>
#include <utility>

#include "chat_program.hpp"
#include "jinja_lexer.hpp"
#include "tessera/base/text.hpp"

namespace tessera {
namespace {

// Ours are a few hundred bytes, the longest seen in files about 20 KiB; the bound also bounds a prompt's scaffold.
constexpr size_t kMaxTemplateBytes = 64 << 10;

constexpr std::pair<std::string_view, std::string_view> kNamed[] = {
    {"chatml", "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}"
               "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"},
};

class Renderer {
 public:
  Renderer(const std::vector<ChatMessage>& messages, bool add_prompt) : messages_(messages), add_prompt_(add_prompt) {}

  void run(const std::vector<ChatNode>& nodes) {
    for (const ChatNode& node : nodes) run(node);
  }
  std::vector<PromptSegment> take() { return std::move(segments_); }

 private:
  void run(const ChatNode& node) {
    switch (node.kind) {
      case ChatNode::kPrint: print(node.expr); break;
      case ChatNode::kSetPrompt: add_prompt_ = holds(node.expr); break;
      case ChatNode::kFor:
        for (current_ = 0; current_ < messages_.size(); ++current_) run(node.body);
        break;
      case ChatNode::kIf: {
        const auto taken = std::find_if(node.body.begin(), node.body.end(), [&](const ChatNode& branch) { return holds(branch.expr); });
        if (taken != node.body.end()) run(taken->body);
        break;
      }
      case ChatNode::kBranch: break;  // run by its kIf
    }
  }

  void print(const ChatExpr& expr) {
    if (expr.kind == ChatExpr::kJoin) {
      for (const ChatExpr& part : expr.parts) print(part);
    } else {
      add(field(expr), expr.kind == ChatExpr::kLiteral);
    }
  }

  void add(std::string_view text, bool scaffold) {
    if (text.empty()) return;
    if (segments_.empty() || segments_.back().scaffold != scaffold) segments_.push_back({"", scaffold});
    segments_.back().text += text;
  }

  // Of a text that is not joined.
  std::string_view field(const ChatExpr& expr) const {
    if (expr.kind == ChatExpr::kLiteral) return expr.text;
    if (messages_.empty()) return {};
    const size_t index = expr.message == ChatExpr::kCurrent ? current_ : expr.message == ChatExpr::kFirst ? 0 : messages_.size() - 1;
    const ChatMessage& message = messages_[index];
    const std::string_view text = expr.kind == ChatExpr::kRole ? message.role : message.content;
    return expr.trim ? python_strip(text) : text;
  }

  std::string text_of(const ChatExpr& expr) const {
    if (expr.kind != ChatExpr::kJoin) return std::string(field(expr));
    std::string text;
    for (const ChatExpr& part : expr.parts) text += text_of(part);
    return text;
  }

  bool holds(const ChatExpr& expr) const {
    const auto part_holds = [this](const ChatExpr& part) { return holds(part); };
    switch (expr.kind) {
      case ChatExpr::kConstant: return expr.value;
      case ChatExpr::kLoopFirst: return current_ == 0;
      case ChatExpr::kLoopLast: return current_ + 1 == messages_.size();
      case ChatExpr::kAddPrompt: return add_prompt_;
      case ChatExpr::kEqual: return text_of(expr.parts[0]) == text_of(expr.parts[1]);
      case ChatExpr::kNot: return !holds(expr.parts[0]);
      case ChatExpr::kAnd: return std::all_of(expr.parts.begin(), expr.parts.end(), part_holds);
      case ChatExpr::kOr: return std::any_of(expr.parts.begin(), expr.parts.end(), part_holds);
      default: return !text_of(expr).empty();
    }
  }

  const std::vector<ChatMessage>& messages_;
  bool add_prompt_;
  size_t current_ = 0;
  std::vector<PromptSegment> segments_;
};

}  // namespace

struct ChatTemplate::Program {
  std::vector<ChatNode> nodes;
};

Result<ChatTemplate> ChatTemplate::create(std::string_view source) {
  if (source.size() > kMaxTemplateBytes)
    return fail(ErrorCode::kLimit, cat("the chat template is ", source.size(), " bytes long; at most ", kMaxTemplateBytes, " are read"));
  TESSERA_ASSIGN(auto nodes, read_chat_template(source));
  return ChatTemplate(std::make_shared<const Program>(Program{std::move(nodes)}));
}

Result<ChatTemplate> ChatTemplate::named(std::string_view name) {
  std::string known;
  for (const auto& [row_name, source] : kNamed) {
    if (row_name == name) return create(source);
    known += known.empty() ? "" : ", ";
    known += row_name;
  }
  return fail(ErrorCode::kNotFound, cat("no built-in chat template is called '", escaped(name), "'; there are: ", known));
}

std::vector<PromptSegment> ChatTemplate::render(const std::vector<ChatMessage>& messages, bool add_generation_prompt) const {
  Renderer renderer(messages, add_generation_prompt);
  renderer.run(program_->nodes);
  return renderer.take();
}

std::string ChatTemplate::render_text(const std::vector<ChatMessage>& messages, bool add_generation_prompt) const {
  std::string text;
  for (const PromptSegment& segment : render(messages, add_generation_prompt)) text += segment.text;
  return text;
}

}  // namespace tessera
