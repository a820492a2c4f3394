// tessera-chat: talk to a GGUF model. `tessera-chat --help`.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>

#include "chat.hpp"

namespace {
using chat::Options;

void add_options(CLI::App& app, Options& options, std::string& file, std::string& dash) {
  app.add_option("model", options.model, "GGUF file (architecture llama; weights F32, F16, Q8_0, Q4_0, Q4_1)")->required();
  app.add_option("input", dash, "-: ask what is on standard input")->check(CLI::IsMember({"-"}));
  app.add_option("-p,--prompt", options.prompt, "ask this, print the answer, leave");
  app.add_option("-f,--file", file, "ask what this file holds (-: standard input)");
  app.add_option("--system", options.system, "system message");
  app.add_option("--device", options.device, "auto, opencl, opencl:N, or part of a device's name")->capture_default_str();
  app.add_option("-c,--context", options.context_tokens, "tokens of context (default: as trained, at most 4096)")->check(CLI::PositiveNumber);
  app.add_option("-n,--max-tokens", options.generate.max_tokens, "longest answer, in tokens")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--temp", options.generate.sampler.temperature, "temperature; 0: always the likeliest token")->capture_default_str();
  app.add_option("--top-k", options.generate.sampler.top_k, "choose among the k likeliest; 0: all")->capture_default_str();
  app.add_option("--seed", options.generate.sampler.seed, "same seed, same text")->capture_default_str();
  app.add_option("--stop", options.generate.stop, "end the answer before this text (repeatable)");
  app.add_option("--chat-template", options.chat_template, "a built-in template instead of the file's: chatml");
  app.add_option("--weights-in", options.weights_in, "storage of weights: buffer, image2d (default: what suits the device)");
  app.add_option("--activations-in", options.activations_in, "storage of activations: buffer, image2d");
  app.add_flag("-q,--quiet", options.quiet, "only the answer, no status");
  app.add_flag("--no-color", options.no_color, "no colour (NO_COLOR too)");
  app.add_flag("--profile", options.profile, "time of every kernel, to standard error at the end");
  app.add_flag("--dump-plan", options.dump_plan, "print the plans to standard error");
  app.set_version_flag("--version", std::string(tessera::kVersion));
}

tessera::Result<std::string> read_text(const std::string& path) {
  if (path == "-") return std::string(std::istreambuf_iterator<char>(std::cin), {});
  std::ifstream in(path, std::ios::binary);
  if (!in) return tessera::fail(tessera::ErrorCode::kNotFound, "cannot read " + path);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

tessera::Result<std::optional<tessera::Storage>> storage(const std::string& name) {
  if (name.empty()) return std::optional<tessera::Storage>();
  const auto found = tessera::storage_from_name(name);
  if (!found) return tessera::fail(tessera::ErrorCode::kInvalidArgument, "no storage named '" + name + "'; there are buffer and image2d");
  return found;
}

tessera::Result<tessera::Model> load(const Options& options, chat::Status& status) {
  tessera::LoadOptions load;
  load.context_tokens = options.context_tokens;
  TESSERA_ASSIGN(load.weight_storage, storage(options.weights_in));
  TESSERA_ASSIGN(load.activation_storage, storage(options.activations_in));
  load.on_progress = [&](const tessera::Progress& progress) { status.progress(progress); };
  load.on_log = [&](tessera::LogLevel level, std::string_view line) {
    if (level == tessera::LogLevel::kWarning) status.warning(line);
  };
  TESSERA_ASSIGN(tessera::Device device, tessera::Device::open(options.device));
  TESSERA_ASSIGN(tessera::Model model, tessera::Model::load(options.model, std::move(device), load));
  if (!options.chat_template.empty()) {
    TESSERA_ASSIGN(tessera::ChatTemplate built_in, tessera::ChatTemplate::named(options.chat_template));
    model.set_chat_template(std::move(built_in));
  }
  const tessera::gpu::Counters& counters = model.runtime()->counters();
  status.line(tessera::cat(model.config().name, " on ", model.device().info().name, ": ", tessera::bytes_text(model.memory().total()), " of device memory, ",
                           counters.programs_compiled == 0 ? tessera::cat(counters.programs_loaded, " kernels from the cache, none compiled")
                                                           : tessera::cat(counters.programs_compiled, " kernels compiled (the next start takes them from the cache)")));
  return model;
}

int run(Options options, const std::string& file) {
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of the write, not the end of the program
  chat::Status status(options.quiet, !options.no_color);
  const bool from_input = !options.has_prompt && (file == "-" || (file.empty() && !chat::input_is_terminal()));
  if (from_input || !file.empty()) {
    auto text = read_text(from_input ? "-" : file);
    if (!text) {
      chat::print_error(text.error().message());
      return chat::kExitError;
    }
    options.prompt = std::move(*text);
    options.has_prompt = true;
  }
  if (options.has_prompt && options.prompt.empty()) {
    chat::print_error("the prompt is empty: give it with -p, -f FILE, or on standard input");
    return chat::kExitUsage;
  }
  if (const tessera::Status valid = options.generate.sampler.validate(); !valid) {
    chat::print_error(valid.error().message());
    return chat::kExitUsage;
  }
  auto model = load(options, status);
  if (!model) {
    chat::print_error(model.error().message());
    return model.error().code() == tessera::ErrorCode::kInvalidArgument ? chat::kExitUsage : chat::kExitError;
  }
  if (options.dump_plan) std::fputs(model->runtime()->dump_plans().c_str(), stderr);
  tessera::Profile profile;
  if (options.profile) model->runtime()->set_profile(&profile);
  tessera::Session session(*model, {.system = options.system});
  chat::Interrupt interrupt(session);
  const int code = options.has_prompt ? chat::run_once(session, options.prompt, options, status, interrupt, *model) : chat::run_interactive(session, options, status, interrupt, *model);
  if (options.profile) std::fputs(profile.table().c_str(), stderr);
  return code;
}
}  // namespace

int main(int argc, char** argv) {
  CLI::App app("tessera-chat: talk to a language model on this machine's GPU. With a terminal and no prompt it is a conversation.");
  Options options;
  std::string file, dash;
  add_options(app, options, file, dash);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : chat::kExitUsage;
  }
  options.has_prompt = app.count("--prompt") > 0;
  if (!dash.empty()) file = dash;
  return run(std::move(options), file);
}
