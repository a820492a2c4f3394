// tessera-bench: how fast a model runs here. `tessera-bench --help`. A rate never comes without its spread, and what is compared runs by turns in one process.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "commands.hpp"
#include "rows.hpp"

namespace {

void add_device(CLI::App& command, std::string& device) { command.add_option("--device", device, "auto, opencl, vulkan, API:N, or part of a device's name")->capture_default_str(); }

void add_loading(CLI::App& command, tessera::bench::ModelOptions& options) {
  add_device(command, options.device);
  command.add_option("--precision", options.precision, "of activations and KV: default, half, float")->check(CLI::IsMember(tessera::precision_names()))->capture_default_str();
  command.add_option("--kv", options.kv, "keys and values in float, half or int8; default: as the precision says")->check(CLI::IsMember(tessera::kv_type_names()))->capture_default_str();
  command.add_option("--weights-in", options.weights_in, "storage of weights: " + tessera::storage_names() + " (default: the device's tuning row)");
  command.add_option("--activations-in", options.activations_in, "storage of activations, likewise");
}

// A part of a run that is a process of its own: no command for people.
CLI::App* add_hidden(CLI::App& app, const char* name, tessera::bench::ModelOptions& options) {
  CLI::App* command = app.add_subcommand(name)->group("");
  command->add_option("--model", options.model)->required();
  add_loading(*command, options);
  return command;
}

// llama-bench's -pg is two letters behind one dash, which means -p g elsewhere.
std::vector<std::string> arguments_of(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  for (std::string& argument : arguments)
    if (argument == "-pg") argument = "--pg";
  return {arguments.rbegin(), arguments.rend()};   // as CLI11 takes them
}

// "90s", "5m", "90"; at most a week.
std::optional<double> seconds_of(const std::string& text) {
  double value = 0.0;
  char unit = 's';
  int end = 0;
  const int length = static_cast<int>(text.size());
  if (std::sscanf(text.c_str(), "%lf%n%c%n", &value, &end, &unit, &end) < 1 || end != length || (unit != 's' && unit != 'm')) return std::nullopt;
  value *= unit == 'm' ? 60.0 : 1.0;
  return value >= 0.0 && value <= 7 * 86400.0 ? std::optional(value) : std::nullopt;
}

int report(const tessera::Status& status) {
  if (status) return 0;
  std::fprintf(stderr, "error: %s\n", status.error().message().c_str());
  return status.error().code() == tessera::ErrorCode::kInvalidArgument ? 2 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  namespace bench = tessera::bench;
  CLI::App app("tessera-bench: how fast a model runs on this device\n\n  tessera-bench -m MODEL [OPTIONS]    prompts and answers, as llama-bench measures them\n  tessera-bench sessions MODEL        several answers at once\n  tessera-bench tune -m MODEL         what makes kernels faster here, measured and kept");
  app.name("tessera-bench");
  app.set_version_flag("--version", std::string(tessera::kVersion));
  app.require_subcommand(0, 1);

  bench::RunOptions run;
  const CLI::Validator tokens = CLI::Range(0, 1 << 20);
  app.add_option("-m,--model", run.models, "GGUF file; several: -m A -m B")->allow_extra_args(false);
  app.add_option("-p,--n-prompt", run.n_prompt, "tests of a prompt of so many tokens; a list: 128,512; 0: none")->delimiter(',')->allow_extra_args(false)->check(tokens)->capture_default_str();
  app.add_option("-n,--n-gen", run.n_gen, "tests of an answer of so many tokens, likewise")->delimiter(',')->allow_extra_args(false)->check(tokens)->capture_default_str();
  std::vector<std::string> pairs;
  app.add_option("--pg", pairs, "PP,TG: a prompt and its answer in one test (also -pg); may be given again")->allow_extra_args(false);
  app.add_option("-d,--n-depth", run.n_depth, "tokens in the context before each test, a list")->delimiter(',')->allow_extra_args(false)->check(tokens)->capture_default_str();
  app.add_option("-r,--repetitions", run.repetitions, "of each test; one more before them is not counted")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("-o,--output", run.output, "md, csv, json, jsonl")->check(CLI::IsMember(bench::output_formats()))->capture_default_str();
  app.add_option("--starts", run.starts, "cold starts (nothing compiled, by us or by the driver) to the first token, and as many warm ones; each a process of its own; 0: none")->check(CLI::Range(0, 100))->capture_default_str();
  bool no_check = false;
  app.add_flag("--no-check", no_check, "do not compare the model's choices with those that are known, or that float mode makes");
  app.add_flag("-q,--quiet", run.quiet, "no progress on standard error");
  add_loading(app, run.load);

  bench::SessionsOptions options;
  CLI::App* sessions = app.add_subcommand("sessions", "several answers at once, against one, and against chunks of a prompt; and steps in one submission");
  sessions->add_option("model", options.model, "GGUF file")->required()->check(CLI::ExistingFile);
  add_device(*sessions, options.device);
  sessions->add_option("--sessions", options.sessions, "answers at once")->check(CLI::Range(1, 64))->capture_default_str();
  sessions->add_option("--prompt", options.prompt, "tokens of each prompt")->check(CLI::PositiveNumber)->capture_default_str();
  sessions->add_option("--tokens", options.tokens, "tokens of each answer")->check(CLI::PositiveNumber)->capture_default_str();
  sessions->add_option("-r,--rounds", options.rounds, "repetitions, all cases by turns")->check(CLI::Range(1, 1000))->capture_default_str();
  sessions->add_option("--temp", options.sampler.temperature, "0: greedy")->check(CLI::NonNegativeNumber)->capture_default_str();

  bench::TuneOptions tuning;
  std::string budget = "5m";
  CLI::App* tune = app.add_subcommand("tune", "search workgroups, tiles, splits, widths and layouts on this device; keep what is faster, and right, as rows for later starts");
  tune->add_option("-m,--model", tuning.model, "GGUF file: its shapes are tuned")->required()->check(CLI::ExistingFile);
  add_device(*tune, tuning.device);
  tune->add_option("--budget", budget, "time for the search: 90s, 5m; another run goes on where this one ends")->capture_default_str();
  tune->add_option("-o,--out", tuning.out, "file of rows (default: this device's, beside the compiled programs, where models find it)");
  tune->add_flag("--dry-run", tuning.dry_run, "write no file");
  tune->add_flag("--again", tuning.again, "forget what earlier runs found");
  tune->add_flag("--shapes-only", tuning.shapes_only, "leave out vector width, layouts and fusions, which are timed in whole steps");
  tune->add_option("-r,--rounds", tuning.rounds, "of the comparison with the shipped rows at the end, by turns; 0: none")->check(CLI::Range(0, 1000))->capture_default_str();

  bench::ModelOptions part;
  int32_t count = 0;
  int64_t bytes = 0;
  std::vector<int32_t> prompt;
  CLI::App* first_token = add_hidden(app, "first-token", part);
  first_token->add_option("--prompt", count)->required();
  CLI::App* greedy = add_hidden(app, "greedy", part);
  greedy->add_option("--prompt", prompt)->required();
  greedy->add_option("--count", count)->required();
  CLI::App* bandwidth = app.add_subcommand("bandwidth")->group("");
  add_device(*bandwidth, part.device);
  bandwidth->add_option("--bytes", bytes)->required();

  try {
    app.parse(arguments_of(argc, argv));
    for (const std::string& pair : pairs) {
      int32_t n_prompt = -1, n_gen = -1, end = 0;
      if (std::sscanf(pair.c_str(), "%d,%d%n", &n_prompt, &n_gen, &end) != 2 || end != static_cast<int>(pair.size()) || n_prompt < 0 || n_gen < 0)
        throw CLI::ValidationError("--pg", "'" + pair + "' is no PP,TG like 512,128");
      run.n_prompt_gen.emplace_back(n_prompt, n_gen);
    }
    if (const auto seconds = seconds_of(budget)) tuning.budget_s = *seconds;
    else throw CLI::ValidationError("--budget", "'" + budget + "' is no time like 90s or 5m");
    if (app.get_subcommands().empty() && run.models.empty()) throw CLI::RequiredError("--model");
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  run.check = !no_check;
  if (*sessions) return report(bench::run_sessions(options));
  if (*tune) return report(bench::run_tune(tuning));
  if (*first_token) return report(bench::run_first_token(part, count));
  if (*greedy) return report(bench::run_greedy(part, prompt, count));
  if (*bandwidth) return report(bench::run_bandwidth(part.device, bytes));
  return report(bench::run_tests(std::move(run)));
}
