// tessera-bench: how fast a model runs here. `tessera-bench --help`. What is compared runs by turns in one process; a rate never comes without its spread.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "commands.hpp"

int main(int argc, char** argv) {
  CLI::App app("tessera-bench: how fast a model runs on this device");
  app.set_version_flag("--version", std::string(tessera::kVersion));
  app.require_subcommand(1);
  tessera::bench::SessionsOptions options;
  CLI::App* sessions = app.add_subcommand("sessions", "several answers at once, against one, and against chunks of a prompt; and steps in one submission");
  sessions->add_option("model", options.model, "GGUF file")->required()->check(CLI::ExistingFile);
  sessions->add_option("--device", options.device, "auto, opencl, vulkan, API:N, or part of a device's name")->capture_default_str();
  sessions->add_option("--sessions", options.sessions, "answers at once")->check(CLI::Range(1, 64))->capture_default_str();
  sessions->add_option("--prompt", options.prompt, "tokens of each prompt")->check(CLI::PositiveNumber)->capture_default_str();
  sessions->add_option("--tokens", options.tokens, "tokens of each answer")->check(CLI::PositiveNumber)->capture_default_str();
  sessions->add_option("-r,--rounds", options.rounds, "repetitions, all cases by turns")->check(CLI::Range(1, 1000))->capture_default_str();
  sessions->add_option("--temp", options.sampler.temperature, "0: greedy")->check(CLI::NonNegativeNumber)->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const tessera::Status status = tessera::bench::run_sessions(options);
  if (status) return 0;
  std::fprintf(stderr, "error: %s\n", status.error().message().c_str());
  return 1;
}
