#include "interrupt.hpp"

#include <atomic>
#include <csignal>

namespace chat {
namespace {
std::atomic<tessera::Session*> active = nullptr;
std::atomic<bool> interrupted = false;
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<tessera::Session*>::is_always_lock_free, "used in a signal handler");

extern "C" void on_interrupt(int) {
  interrupted = true;
  if (tessera::Session* session = active) session->cancel();  // one atomic store: safe in a handler
}
}  // namespace

Interrupt::Interrupt(tessera::Session& session) {
  active = &session;
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigemptyset(&action.sa_mask);
  action.sa_flags = 0;  // no SA_RESTART: waiting for a line must end
  sigaction(SIGINT, &action, nullptr);
}

Interrupt::~Interrupt() {
  std::signal(SIGINT, SIG_DFL);
  active = nullptr;
}

bool Interrupt::seen() const { return interrupted; }
void Interrupt::reset() { interrupted = false; }

}  // namespace chat
