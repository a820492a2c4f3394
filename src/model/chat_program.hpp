// A chat template as it was understood: a small tree, and the reader that makes it.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "tessera/base/status.hpp"

namespace tessera {

struct ChatExpr {
  enum Kind {
    // Texts.
    kLiteral,    // text
    kRole,       // of `message`
    kContent,    // of `message`, stripped if `trim`
    kJoin,       // parts, one after another
    // Conditions; a text as condition means "not empty".
    kConstant,   // value
    kLoopFirst, kLoopLast, kAddPrompt,
    kEqual,      // two text parts
    kNot, kAnd, kOr,
  };
  enum Message { kCurrent, kFirst, kLast };

  Kind kind = kLiteral;
  std::string text;
  Message message = kCurrent;
  bool trim = false;
  bool value = false;
  std::vector<ChatExpr> parts;

  bool is_text() const { return kind <= kJoin; }
};

struct ChatNode {
  enum Kind {
    kPrint,      // expr
    kFor,        // body, once a message
    kIf,         // body: kBranch nodes, of which the first with a true expr runs
    kBranch,     // expr, body
    kSetPrompt,  // add_generation_prompt = expr
  };
  Kind kind = kPrint;
  ChatExpr expr;
  std::vector<ChatNode> body;
};

// kUnsupported: as ChatTemplate::create.
Result<std::vector<ChatNode>> read_chat_template(std::string_view source);

}  // namespace tessera
