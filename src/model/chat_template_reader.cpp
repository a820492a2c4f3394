// Recursive descent over the tokens of a template; depth is bounded, and so is every later walk over the tree.
#include <algorithm>
#include <utility>

#include "chat_program.hpp"
#include "jinja_lexer.hpp"
#include "tessera/base/text.hpp"

namespace tessera {
namespace {

constexpr int kMaxDepth = 32;
constexpr std::string_view kPromptName = "add_generation_prompt";

ChatExpr expr_of(ChatExpr::Kind kind) {
  ChatExpr expr;
  expr.kind = kind;
  return expr;
}

ChatExpr constant(bool value) {
  ChatExpr expr = expr_of(ChatExpr::kConstant);
  expr.value = value;
  return expr;
}

ChatNode node_of(ChatNode::Kind kind) {
  ChatNode node;
  node.kind = kind;
  return node;
}

class Reader {
 public:
  explicit Reader(std::string_view text) : source_(jinja_source(text)) {}

  Result<std::vector<ChatNode>> run() {
    TESSERA_ASSIGN(tokens_, jinja_tokens(source_));
    TESSERA_ASSIGN(auto nodes, read_nodes());
    if (token().kind != JinjaKind::kEnd) return cannot();  // an end tag without its beginning
    if (!prints_content_) return fail(jinja_error(source_, 0, "a template that never prints a message's content"));
    return nodes;
  }

 private:
  // Counts the levels of a recursive rule.
  struct Level {
    explicit Level(int& depth) : depth_(depth) { ++depth_; }
    ~Level() { --depth_; }
    int& depth_;
  };

  const JinjaToken& token(size_t ahead = 0) const { return tokens_[std::min(next_ + ahead, tokens_.size() - 1)]; }
  bool sees(JinjaKind kind, std::string_view text, size_t ahead = 0) const { return token(ahead).kind == kind && token(ahead).text == text; }
  bool sees_tag(std::string_view name) const { return token().kind == JinjaKind::kOpenBlock && sees(JinjaKind::kName, name, 1); }
  bool take(JinjaKind kind, std::string_view text) { return sees(kind, text) && ++next_; }
  bool take_sign(std::string_view text) { return take(JinjaKind::kSign, text); }
  bool take_name(std::string_view text) { return take(JinjaKind::kName, text); }
  tl::unexpected<Error> cannot() const {
    const bool at_end = token().kind == JinjaKind::kEnd;
    return fail(jinja_error(source_, token().at, at_end ? "the end of the text here" : cat("'", escaped(token().text, 40), "'")));
  }
  Status expect(JinjaKind kind, std::string_view text) {
    if (!take(kind, text)) return cannot();
    return {};
  }
  Status close_block() { return expect(JinjaKind::kCloseBlock, "%}"); }

  // Up to the end, or the tag that closes or divides the statement around.
  Result<std::vector<ChatNode>> read_nodes() {
    const Level level(depth_);
    if (depth_ > kMaxDepth) return cannot();
    std::vector<ChatNode> nodes;
    while (token().kind != JinjaKind::kEnd && !sees_tag("endfor") && !sees_tag("endif") && !sees_tag("elif") && !sees_tag("else")) {
      TESSERA_ASSIGN(ChatNode node, read_node());
      nodes.push_back(std::move(node));
    }
    return nodes;
  }

  Result<ChatNode> read_node() {
    if (token().kind == JinjaKind::kText) {
      ChatNode node = node_of(ChatNode::kPrint);
      node.expr = literal();
      return node;
    }
    if (token().kind == JinjaKind::kOpenPrint) return read_print();
    ++next_;  // {%
    if (take_name("for")) return read_for();
    if (take_name("if")) return read_if();
    if (take_name("set")) return read_set();
    return cannot();
  }

  ChatExpr literal() {
    ChatExpr expr = expr_of(ChatExpr::kLiteral);
    expr.text = tokens_[next_++].text;
    return expr;
  }

  Result<ChatNode> read_print() {
    ++next_;  // {{
    const JinjaToken& start = token();
    ChatNode node = node_of(ChatNode::kPrint);
    TESSERA_ASSIGN(node.expr, read_or());
    if (!node.expr.is_text()) return fail(jinja_error(source_, start.at, "the printing of a condition"));
    TESSERA_TRY(expect(JinjaKind::kClosePrint, "}}"));
    note_content(node.expr);
    return node;
  }

  void note_content(const ChatExpr& expr) {
    prints_content_ |= expr.kind == ChatExpr::kContent && expr.message == ChatExpr::kCurrent;
    for (const ChatExpr& part : expr.parts) note_content(part);
  }

  Result<ChatNode> read_for() {
    const bool is_name = token().kind == JinjaKind::kName && token().text != "loop" && token().text != "messages" && token().text != kPromptName;
    if (!is_name || !loop_name_.empty()) return cannot();
    loop_name_ = tokens_[next_++].text;
    TESSERA_TRY(expect(JinjaKind::kName, "in"));
    TESSERA_TRY(expect(JinjaKind::kName, "messages"));
    TESSERA_TRY(close_block());
    ChatNode node = node_of(ChatNode::kFor);
    TESSERA_ASSIGN(node.body, read_nodes());
    loop_name_.clear();
    TESSERA_TRY(expect(JinjaKind::kOpenBlock, "{%"));
    TESSERA_TRY(expect(JinjaKind::kName, "endfor"));
    TESSERA_TRY(close_block());
    return node;
  }

  Result<ChatNode> read_if() {
    ChatNode node = node_of(ChatNode::kIf);
    TESSERA_ASSIGN(ChatExpr condition, read_or());
    for (bool last = false;; ) {
      TESSERA_TRY(close_block());
      ChatNode branch = node_of(ChatNode::kBranch);
      branch.expr = std::move(condition);
      TESSERA_ASSIGN(branch.body, read_nodes());
      node.body.push_back(std::move(branch));
      TESSERA_TRY(expect(JinjaKind::kOpenBlock, "{%"));
      if (take_name("endif")) break;
      if (!last && take_name("elif")) {
        TESSERA_ASSIGN(condition, read_or());
      } else if (!last && take_name("else")) {
        condition = constant(true);
        last = true;
      } else {
        return cannot();
      }
    }
    TESSERA_TRY(close_block());
    return node;
  }

  // Only of add_generation_prompt, and outside the loop, which would keep the change to itself.
  Result<ChatNode> read_set() {
    if (!loop_name_.empty()) return cannot();
    TESSERA_TRY(expect(JinjaKind::kName, kPromptName));
    TESSERA_TRY(expect(JinjaKind::kSign, "="));
    ChatNode node = node_of(ChatNode::kSetPrompt);
    TESSERA_ASSIGN(node.expr, read_or());
    TESSERA_TRY(close_block());
    return node;
  }

  Result<ChatExpr> read_or() {
    const Level level(depth_);
    if (depth_ > kMaxDepth) return cannot();
    ChatExpr expr = expr_of(ChatExpr::kOr);
    do {
      TESSERA_ASSIGN(ChatExpr part, read_and());
      expr.parts.push_back(std::move(part));
    } while (take_name("or"));
    return simplest(std::move(expr));
  }

  Result<ChatExpr> read_and() {
    ChatExpr expr = expr_of(ChatExpr::kAnd);
    do {
      TESSERA_ASSIGN(ChatExpr part, read_not());
      expr.parts.push_back(std::move(part));
    } while (take_name("and"));
    return simplest(std::move(expr));
  }

  Result<ChatExpr> read_not() {
    bool negate = false;
    while (take_name("not")) negate = !negate;
    TESSERA_ASSIGN(ChatExpr expr, read_equal());
    if (!negate) return expr;
    return negation(std::move(expr));
  }

  Result<ChatExpr> read_equal() {
    TESSERA_ASSIGN(ChatExpr left, read_join());
    const bool differs = sees(JinjaKind::kSign, "!=");
    if (!left.is_text() || (!differs && !sees(JinjaKind::kSign, "=="))) return left;
    ++next_;
    const size_t start = token().at;
    TESSERA_ASSIGN(ChatExpr right, read_join());
    if (!right.is_text()) return fail(jinja_error(source_, start, "a comparison with something that is not text"));
    ChatExpr equal = expr_of(ChatExpr::kEqual);
    equal.parts.push_back(std::move(left));
    equal.parts.push_back(std::move(right));
    return differs ? negation(std::move(equal)) : equal;
  }

  Result<ChatExpr> read_join() {
    ChatExpr expr = expr_of(ChatExpr::kJoin);
    do {
      const size_t start = token().at;
      TESSERA_ASSIGN(ChatExpr part, read_primary());
      if (!part.is_text() && expr.parts.empty()) return part;
      if (!part.is_text()) return fail(jinja_error(source_, start, "the joining of something that is not text"));
      expr.parts.push_back(std::move(part));
    } while (take_sign("+") || take_sign("~"));
    return simplest(std::move(expr));
  }

  Result<ChatExpr> read_primary() {
    if (token().kind == JinjaKind::kString) return literal();
    if (take_sign("(")) {
      TESSERA_ASSIGN(ChatExpr inner, read_or());
      TESSERA_TRY(expect(JinjaKind::kSign, ")"));
      return inner;
    }
    for (const bool value : {true, false}) {
      if (take_name(value ? "true" : "false") || take_name(value ? "True" : "False")) return constant(value);
    }
    if (take_name(kPromptName)) return read_defined(expr_of(ChatExpr::kAddPrompt));
    if (!loop_name_.empty() && take_name("loop")) return read_loop();
    if (!loop_name_.empty() && take_name(loop_name_)) return read_field(ChatExpr::kCurrent);
    if (take_name("messages")) return read_message();
    return cannot();
  }

  // `is defined`, `is not defined`: callers always pass the name, so the answer is known.
  Result<ChatExpr> read_defined(ChatExpr variable) {
    if (!take_name("is")) return variable;
    const bool negate = take_name("not");
    TESSERA_TRY(expect(JinjaKind::kName, "defined"));
    return constant(!negate);
  }

  Result<ChatExpr> read_loop() {
    TESSERA_TRY(expect(JinjaKind::kSign, "."));
    if (take_name("first")) return expr_of(ChatExpr::kLoopFirst);
    if (take_name("last")) return expr_of(ChatExpr::kLoopLast);
    return cannot();
  }

  Result<ChatExpr> read_message() {
    TESSERA_TRY(expect(JinjaKind::kSign, "["));
    const bool from_end = take_sign("-");
    TESSERA_TRY(expect(JinjaKind::kNumber, from_end ? "1" : "0"));
    TESSERA_TRY(expect(JinjaKind::kSign, "]"));
    return read_field(from_end ? ChatExpr::kLast : ChatExpr::kFirst);
  }

  // ['role'], .role, ['content'], .content, and `| trim` behind it.
  Result<ChatExpr> read_field(ChatExpr::Message message) {
    const bool dotted = take_sign(".");
    if (!dotted) TESSERA_TRY(expect(JinjaKind::kSign, "["));
    const JinjaKind kind = dotted ? JinjaKind::kName : JinjaKind::kString;
    const bool is_role = take(kind, "role");
    if (!is_role) TESSERA_TRY(expect(kind, "content"));
    if (!dotted) TESSERA_TRY(expect(JinjaKind::kSign, "]"));
    ChatExpr field = expr_of(is_role ? ChatExpr::kRole : ChatExpr::kContent);
    field.message = message;
    while (take_sign("|")) {
      TESSERA_TRY(expect(JinjaKind::kName, "trim"));
      field.trim = true;
    }
    return field;
  }

  static ChatExpr simplest(ChatExpr expr) {
    if (expr.parts.size() != 1) return expr;
    ChatExpr only = std::move(expr.parts.front());
    return only;
  }

  static ChatExpr negation(ChatExpr expr) {
    ChatExpr result = expr_of(ChatExpr::kNot);
    result.parts.push_back(std::move(expr));
    return result;
  }

  std::string source_;
  std::vector<JinjaToken> tokens_;
  size_t next_ = 0;
  std::string loop_name_;   // empty: not inside the loop
  int depth_ = 0;
  bool prints_content_ = false;
};

}  // namespace

Result<std::vector<ChatNode>> read_chat_template(std::string_view source) { return Reader(source).run(); }

}  // namespace tessera
