// Ctrl-C: ends the answer that is being given, else is noticed at the prompt. The program goes on.
#pragma once
#include "tessera/engine/session.hpp"

namespace chat {

// While alive, SIGINT cancels the session's answer. Only one may be alive.
class Interrupt {
 public:
  explicit Interrupt(tessera::Session& session);
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;

  bool seen() const;   // since the last reset()
  void reset();
};

}  // namespace chat
