// tessera-eval: the numbers of a model, for measuring quality. `tessera-eval --help`.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "common.hpp"

namespace {
using tessera::eval::Common;

void add_out(CLI::App& command, Common& common) { command.add_option("--out", common.out, "file to write (default: standard output)"); }

void add_device(CLI::App& command, Common& common) {
  command.add_option("--device", common.device, "auto, opencl, vulkan, API:N, or part of a device's name")->capture_default_str();
}

// What decides how a model is planned.
void add_planning(CLI::App& command, Common& common) {
  command.add_option("--precision", common.precision, "of activations and KV: float, half, or default: f16 KV, f16 activations on devices that compute in f16, products in int8 where the device's row says so")->check(CLI::IsMember(tessera::precision_names()))->capture_default_str();
  command.add_option("--kv", common.kv, "keys and values in float, half or int8; default: as the precision says")->check(CLI::IsMember(tessera::kv_type_names()))->capture_default_str();
  command.add_option("--weights-in", common.weights_in, "storage of weights: " + tessera::storage_names() + " (default: the device's tuning row)");
  command.add_option("--activations-in", common.activations_in, "storage of activations, likewise");
}

void add_common(CLI::App& command, Common& common, bool runs_model) {
  command.add_option("--model", common.model, "GGUF file")->required();
  add_out(command, common);
  command.add_flag("-q,--quiet", common.quiet, "no progress on standard error");
  if (!runs_model) return;
  add_device(command, common);
  add_planning(command, common);
  command.add_flag("--profile", common.profile, "time of every kernel, to standard error");
  command.add_flag("--dump-plan", common.dump_plan, "the plans as text, to standard error");
}

int report(const tessera::Status& status) {
  if (status) return 0;
  std::fprintf(stderr, "error: %s\n", status.error().message().c_str());
  return status.error().code() == tessera::ErrorCode::kInvalidArgument ? 2 : 1;
}
}  // namespace

int main(int argc, char** argv) {
  CLI::App app("tessera-eval: logits, greedy ids, tokenization, chat prompts, perplexity, plans and soundness of a model");
  app.require_subcommand(1);
  Common common;
  std::string tokens, file, target;
  bool last = false, flag = false;
  int32_t n = 32, context = 512, stride = 256;
  int64_t chunk = 0;

  CLI::App* logits = app.add_subcommand("logits", "raw little-endian float32, one row of the vocabulary per position");
  add_common(*logits, common, true);
  logits->add_option("--tokens", tokens, "ids: 1,2,3")->required();
  logits->add_flag("--last", last, "only the last position");

  CLI::App* greedy = app.add_subcommand("greedy", "the ids that greedy decoding gives");
  add_common(*greedy, common, true);
  greedy->add_option("--tokens", tokens, "ids of the prompt: 1,2,3")->required();
  greedy->add_option("--n", n, "how many")->capture_default_str();
  greedy->add_flag("--ignore-eos", flag, "go on after an end-of-text token");

  CLI::App* tokenize = app.add_subcommand("tokenize", "ids of standard input, or of each line of --jsonl");
  add_common(*tokenize, common, false);
  tokenize->add_option("--jsonl", file, "lines {\"b64\": …, \"parse_special\": bool}; one line of ids each");
  tokenize->add_flag("--parse-special", flag, "recognise special tokens");

  CLI::App* detokenize = app.add_subcommand("detokenize", "the text of ids");
  add_common(*detokenize, common, false);
  detokenize->add_option("--tokens", tokens, "ids (default: from standard input)");

  CLI::App* chat_template = app.add_subcommand("template", "the prompt text of a list of messages");
  add_common(*chat_template, common, false);
  chat_template->add_option("--messages", file, "JSON list of {\"role\", \"content\"}; - for standard input")->required();
  chat_template->add_flag("--add-generation-prompt", flag, "end with the beginning of an answer");

  CLI::App* perplexity = app.add_subcommand("perplexity", "perplexity of a text");
  add_common(*perplexity, common, true);
  perplexity->add_option("--file", file, "text; - for standard input")->required();
  perplexity->add_option("--context", context, "tokens of a window")->capture_default_str();
  perplexity->add_option("--stride", stride, "tokens between windows")->capture_default_str();

  CLI::App* check = app.add_subcommand("check", "read a model file through: is its structure whole, and every weight a finite number?");
  check->add_option("--model", common.model, "GGUF file")->required();
  add_out(*check, common);

  CLI::App* device = app.add_subcommand("device", "the facts of a device as JSON: a profile for `plan` elsewhere");
  add_device(*device, common);
  add_out(*device, common);

  CLI::App* plan = app.add_subcommand("plan", "how a model would lie and run on a device that need not be here; nothing is loaded");
  plan->add_option("--profile", file, "device report: Vulkan limits (as in tests/data/devices) or what `tessera-eval device` prints; - for standard input")->required();
  plan->add_option("--model", common.model, "GGUF file; of its weights only the descriptions are read")->required();
  plan->add_option("--target", target, "opencl or vulkan (default: the profile's own)")->check(CLI::IsMember({"opencl", "vulkan"}));
  plan->add_option("--context", common.context, "tokens of context (default: as trained, at most 4096)")->check(CLI::NonNegativeNumber);
  plan->add_option("--chunk", chunk, "print the step of so many tokens alone (1: decode)");
  add_planning(*plan, common);
  add_out(*plan, common);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  using namespace tessera::eval;
  if (*logits) return report(run_logits(common, tokens, last));
  if (*greedy) return report(run_greedy(common, tokens, n, flag));
  if (*tokenize) return report(run_tokenize(common, file, flag));
  if (*detokenize) return report(run_detokenize(common, tokens));
  if (*chat_template) return report(run_template(common, file, flag));
  if (*check) return report(run_check(common));
  if (*device) return report(run_device(common));
  if (*plan) return report(run_plan(common, file, target, chunk));
  return report(run_perplexity(common, file, context, stride));
}
