// Model: weights, plans and tokenizer on a device, shared by its sessions.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tessera/engine/engine.hpp"
#include "tessera/engine/runtime.hpp"
#include "tessera/model/chat_template.hpp"
#include "tessera/model/tokenizer.hpp"

namespace tessera {

// A handle; copies share the model. Sessions keep theirs alive. Any thread may use it.
class Model {
 public:
  // Reads a GGUF file, uploads it to `device` and compiles its kernels. Errors: those of ModelFile::open; kLimit (does not fit); kOutOfMemory;
  // kCompile; kDriver. A tokenizer or chat template that is not supported is no error here: text() and chat() say so when they are needed.
  static Result<Model> load(const std::string& path, Device device, const LoadOptions& options = {}) {
    TESSERA_ASSIGN(auto runtime, Runtime::load(path, std::move(device), options));
    auto tokenizer = Tokenizer::create(runtime->file().tokenizer());
    const std::string& source = runtime->file().tokenizer().chat_template;
    auto chat = source.empty() ? fail(ErrorCode::kUnsupported, "the model file has no chat template; ask for a built-in one (chatml)") : ChatTemplate::create(source);
    // Made with its members, never assigned to: without exceptions tl::expected copies where it is assigned.
    auto engine = std::make_unique<Engine>(*runtime);
    return Model(std::make_shared<Shared>(Shared{std::move(runtime), std::move(engine), std::move(tokenizer), std::move(chat)}));
  }

  const ModelConfig& config() const { return shared_->runtime->config(); }
  const MemoryPlan& memory() const { return shared_->runtime->memory(); }
  const Device& device() const { return shared_->runtime->device(); }
  int32_t context_tokens() const { return shared_->runtime->cache().max_context_tokens(); }
  const Result<Tokenizer>& tokenizer() const { return shared_->tokenizer; }
  const Result<ChatTemplate>& chat_template() const { return shared_->chat; }
  // Instead of the file's template, for sessions made from now on.
  void set_chat_template(ChatTemplate chat) { shared_->chat = std::move(chat); }
  // Makes the answers of all sessions.
  Engine& engine() const { return *shared_->engine; }
  // The machinery below: counters, plans, profiles.
  const std::shared_ptr<Runtime>& runtime() const { return shared_->runtime; }

 private:
  struct Shared {
    std::shared_ptr<Runtime> runtime;
    std::unique_ptr<Engine> engine;   // of that runtime
    Result<Tokenizer> tokenizer;
    Result<ChatTemplate> chat;
  };
  explicit Model(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  std::shared_ptr<Shared> shared_;
};

}  // namespace tessera
