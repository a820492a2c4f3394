// tessera-chat: talk to a GGUF model. `tessera-chat --help`.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <iterator>

#include "chat.hpp"
#include "files.hpp"
#include "models.hpp"
#include "saved.hpp"
#include "settings.hpp"

namespace {
using chat::Options;

void add_options(CLI::App& app, Options& options, std::string& file, std::string& dash) {
  app.add_option("model", options.model, "GGUF file, or the name of one that --list shows");
  app.add_option("input", dash, "-: ask what is on standard input")->check(CLI::IsMember({"-"}));
  app.add_flag("--list", options.list, "models in $TESSERA_MODELS, ~/.cache/tessera/models and the present folder");
  app.add_option("-p,--prompt", options.prompt, "ask this, print the answer, leave");
  app.add_option("-f,--file", file, "ask what this file holds (-: standard input)");
  app.add_option("-n", options.answers, "answers to one prompt, each with its own draws (needs a temperature); the prompt is run once")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--system", options.system, "system message");
  app.add_option("--device", options.device, "auto, opencl, vulkan, API:N, or part of a device's name")->capture_default_str();
  app.add_option("-c,--context", options.context_tokens, "tokens of context (default: as trained, at most 4096)")->check(CLI::PositiveNumber);
  app.add_option("--stop", options.generate.stop, "end the answer before this text (repeatable)")->allow_extra_args(false);
  app.add_option("--chat-template", options.chat_template, "a built-in template instead of the file's: chatml");
  app.add_option("--weights-in", options.weights_in, "storage of weights: " + tessera::storage_names() + " (default: what suits the device)");
  app.add_option("--activations-in", options.activations_in, "storage of activations, likewise");
  app.add_option("--precision", options.precision, "of activations and KV: float, half, or default: f16 KV, f16 activations on devices that compute in f16, products in int8 where the device's row says so")
      ->check(CLI::IsMember(tessera::precision_names()))
      ->capture_default_str();
  app.add_option("--kv", options.kv, "keys and values in float, half, or int8: about half the memory of half; default: as the precision says")
      ->check(CLI::IsMember(tessera::kv_type_names()))
      ->capture_default_str();
  app.add_option("--kv-bytes", options.kv_bytes, "memory of the KV cache, e.g. 200M or 1G (default: what one context takes)")->transform(CLI::AsSizeValue(false));
  app.add_option("--page-tokens", options.page_tokens, "tokens of a KV page, a power of two (default: 16)")->check(CLI::PositiveNumber);
  app.add_flag("--json", options.json, "the answer and its figures as a JSON object; with -n one a line");
  app.add_flag("--log-probabilities", options.generate.log_probabilities, "with --json: ln of each token's probability, at temperature 1 and before any cut");
  CLI::Option* quiet = app.add_flag("-q,--quiet", options.quiet, "only the answer, no status");
  app.add_flag("-v,--verbose", options.verbose, "say more: model, device, memory, sampler")->excludes(quiet);
  app.add_flag("--no-color", options.no_color, "no colour (NO_COLOR too)");
  app.add_flag("--profile", options.profile, "time of every kernel, to standard error at the end");
  app.add_flag("--dump-plan", options.dump_plan, "print the plans to standard error");
  app.set_version_flag("--version", std::string(tessera::kVersion));
}

// One option for each row of the table. Several values of one option, which only the logit bias has a use for, are joined by commas.
void add_settings(CLI::App& app, tessera::GenerateOptions& generate) {
  for (const chat::Setting& setting : chat::settings()) {
    const auto take = [&setting, &generate](const std::vector<std::string>& values) {
      std::string joined;
      for (const std::string& value : values) joined += (joined.empty() ? "" : ",") + value;
      if (const tessera::Status done = chat::set(generate, setting.key, joined); !done) throw CLI::ValidationError(std::string(setting.flags), done.error().message());
    };
    app.add_option_function<std::vector<std::string>>(std::string(setting.flags), take, std::string(setting.help))
        ->expected(1)->take_all()->allow_extra_args(false)->type_name("")->default_str(setting.text(generate))->group("How answers are made");
  }
}

tessera::Result<std::string> read_text(const std::string& path) {
  if (path == "-") return std::string(std::istreambuf_iterator<char>(std::cin), {});
  return chat::read_text_file(path);
}

tessera::Result<std::optional<tessera::Storage>> storage(const std::string& name) {
  if (name.empty()) return std::optional<tessera::Storage>();
  const auto found = tessera::storage_from_name(name);
  if (!found) return tessera::fail(tessera::ErrorCode::kInvalidArgument, "no storage named '" + name + "'; there are " + tessera::storage_names());
  return found;
}

tessera::Result<tessera::Model> load(const Options& options, chat::Status& status) {
  tessera::LoadOptions load;
  load.context_tokens = options.context_tokens;
  load.precision = tessera::precision_from_name(options.precision).value_or(tessera::Precision::kDefault);
  load.kv = tessera::kv_type_from_name(options.kv).value_or(tessera::KvType::kDefault);
  load.kv_bytes = options.kv_bytes;
  load.page_tokens = options.page_tokens;
  TESSERA_ASSIGN(load.weight_storage, storage(options.weights_in));
  TESSERA_ASSIGN(load.activation_storage, storage(options.activations_in));
  load.on_progress = [&](const tessera::Progress& progress) { status.progress(progress); };
  load.on_log = [&](tessera::LogLevel level, std::string_view line) {
    if (level == tessera::LogLevel::kWarning) status.warning(line);
  };
  TESSERA_ASSIGN(tessera::Device device, tessera::Device::open(options.device));
  TESSERA_ASSIGN(const std::string path, chat::find_model(options.model));
  TESSERA_ASSIGN(tessera::Model model, tessera::Model::load(path, std::move(device), load));
  if (!options.chat_template.empty()) {
    TESSERA_ASSIGN(tessera::ChatTemplate built_in, tessera::ChatTemplate::named(options.chat_template));
    model.set_chat_template(std::move(built_in));
  }
  const tessera::gpu::Counters& counters = model.runtime()->counters();
  status.line(tessera::cat(model.config().name, " on ", model.device().info().name,
                           options.device == "auto" ? tessera::cat(" (", name_of(model.device().info().api), ": ", model.device().choice(), ")") : "", ": ", tessera::bytes_text(model.memory().total()), " of device memory, ",
                           counters.programs_compiled == 0 ? tessera::cat(counters.programs_loaded, " kernels from the cache, none compiled")
                                                           : tessera::cat(counters.programs_compiled, " kernels compiled", model.runtime()->programs().folder().empty() ? "" : " (the next start takes them from the cache)")));
  return model;
}

// Says what went wrong, as JSON too where that was asked for, and gives the exit code.
int failed(const tessera::Error& error, const Options& options, const chat::Status& status) {
  status.error(error.message());
  if (options.json) std::puts(chat::error_json(error).c_str());
  return error.code() == tessera::ErrorCode::kInvalidArgument ? chat::kExitUsage : chat::kExitError;
}

// The prompt from where it comes from, if there is one. kInvalidArgument: it is empty, or missing where it is needed.
tessera::Status take_prompt(Options& options, const std::string& file) {
  const bool from_input = !options.has_prompt && (file == "-" || (file.empty() && !chat::input_is_terminal()));
  if (from_input || !file.empty()) {
    TESSERA_ASSIGN(options.prompt, read_text(from_input ? "-" : file));
    options.has_prompt = true;
  }
  if (options.has_prompt && options.prompt.empty())
    return tessera::fail(tessera::ErrorCode::kInvalidArgument, "the prompt is empty: give it with -p, -f FILE, or on standard input");
  if (options.answers > 1 && !options.has_prompt) return tessera::fail(tessera::ErrorCode::kInvalidArgument, "-n needs a prompt: -p, -f FILE, or standard input");
  if (options.json && !options.has_prompt) return tessera::fail(tessera::ErrorCode::kInvalidArgument, "--json needs a prompt: -p, -f FILE, or standard input");
  return {};
}

int run_list(const Options& options, const chat::Status& status) {
  const auto table = chat::model_table(options.device, options.context_tokens);
  if (!table) return failed(table.error(), options, status);
  std::fputs(table->c_str(), stdout);
  return 0;
}

int run(Options options, const std::string& file) {
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of the write, not the end of the program
  using Level = chat::Status::Level;
  chat::Status status(options.quiet ? Level::kQuiet : options.verbose ? Level::kVerbose : Level::kNormal, !options.no_color);
  if (options.list) return run_list(options, status);
  if (options.model.empty()) {
    status.error("a model is required: the path of a GGUF file, or a name that tessera-chat --list shows");
    return chat::kExitUsage;
  }
  if (const tessera::Status taken = take_prompt(options, file); !taken) return failed(taken.error(), options, status);
  auto model = load(options, status);
  if (!model) return failed(model.error(), options, status);
  if (const tessera::Status valid = options.generate.validate(model->config().vocab_size); !valid) return failed(valid.error(), options, status);
  if (options.dump_plan) std::fputs(model->runtime()->dump_plans().c_str(), stderr);
  tessera::Profile profile;
  if (options.profile) model->runtime()->set_profile(&profile);
  tessera::Session session(*model, {.system = options.system});
  chat::Interrupt interrupt(session);
  chat::Chat chat{*model, session, options.generate, status, interrupt};
  status.detail(chat::facts(chat));
  const int code = !options.has_prompt ? chat::run_interactive(chat) : options.answers > 1 ? chat::run_several(chat, options.prompt, options.answers, options.json) : chat::run_once(chat, options.prompt, options.json);
  if (options.profile) std::fputs(profile.table().c_str(), stderr);
  return code;
}
}  // namespace

int main(int argc, char** argv) {
  CLI::App app("tessera-chat: talk to a language model on this machine's GPU. With a terminal and no prompt it is a conversation.");
  Options options;
  std::string file, dash;
  add_options(app, options, file, dash);
  add_settings(app, options.generate);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : chat::kExitUsage;
  }
  options.has_prompt = app.count("--prompt") > 0;
  if (!dash.empty()) file = dash;
  return run(std::move(options), file);
}
