// The commands of tessera-bench.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tessera/tessera.hpp"

namespace tessera::bench {

// How the model is loaded, in every command.
struct ModelOptions {
  std::string model;
  std::string device = "auto";
  std::string precision = "default";
  std::string kv = "default";
  std::string weights_in, activations_in;   // storage names; empty: the device's tuning row

  // With room for `context_tokens`; new sequences begin empty. kInvalidArgument.
  Result<LoadOptions> load_options(int64_t context_tokens) const;
  // The same as arguments of a process of this program.
  std::vector<std::string> arguments() const;
};

struct RunOptions {
  ModelOptions load;                          // load.model: the one at hand
  std::vector<std::string> models;
  std::vector<int32_t> n_prompt{512};         // tests of the prompt alone
  std::vector<int32_t> n_gen{128};            // and of the answer alone
  std::vector<std::pair<int32_t, int32_t>> n_prompt_gen;   // and of both
  std::vector<int32_t> n_depth{0};            // tokens before them
  int32_t repetitions = 5;
  int32_t starts = 1;                         // cold ones, and as many warm ones; 0: neither
  bool check = true;
  std::string output = "md";
  bool quiet = false;
};
// The default: speed of prompts and answers, start, memory, as a table or data on standard output. kNumericFault when the answers are wrong.
Status run_tests(RunOptions options);

struct SessionsOptions {
  std::string model;
  std::string device = "auto";
  int32_t sessions = 8;
  int32_t prompt = 64;    // tokens
  int32_t tokens = 64;    // of each answer
  int32_t rounds = 5;
  SamplerOptions sampler;
};
// Rates of several sessions at once, printed.
Status run_sessions(const SessionsOptions& options);

struct TuneOptions {
  std::string model;
  std::string device = "auto";
  std::string out;            // file of rows; empty: the device's own in the cache folder
  double budget_s = 300.0;
  bool again = false;         // forget what earlier runs decided
  bool dry_run = false;       // write nothing that lasts
  bool shapes_only = false;   // no settings that ops share
  int32_t rounds = 7;         // of the comparison at the end; 0: none
};
// Searches settings for this device and model, keeps them as rows, and prints what they gain.
Status run_tune(const TuneOptions& options);

// Parts of run_tests that run in a process of their own, each with one line of JSON as its answer.
// From nothing to the first token behind a prompt, and where the time went.
Status run_first_token(const ModelOptions& options, int32_t prompt);
// How fast the device reads and copies.
Status run_bandwidth(const std::string& device, int64_t bytes);
// The ids that greedy decoding in float mode chooses.
Status run_greedy(const ModelOptions& options, const std::vector<int32_t>& prompt, int32_t count);

// The same ids everywhere, all over the vocabulary.
inline std::vector<int32_t> prompt_of(const ModelConfig& config, int64_t length, int32_t seed) {
  std::vector<int32_t> ids(static_cast<size_t>(length));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>((i * 7919 + static_cast<size_t>(seed) * 104729 + 31) % static_cast<size_t>(config.vocab_size));
  return ids;
}

}  // namespace tessera::bench
