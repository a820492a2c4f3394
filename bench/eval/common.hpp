// Shared by the commands of tessera-eval: options, output, small parsers.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "tessera/tessera.hpp"

namespace tessera::eval {

// Options that every command takes.
struct Common {
  std::string model;
  std::string out;                 // empty: stdout
  std::string device = "auto";
  std::string precision = "default";
  std::string kv = "default";
  std::string weights_in, activations_in;   // storage names; empty: the device's tuning row
  int32_t context = 0;             // 0: what the input needs
  bool profile = false;
  bool dump_plan = false;
  bool quiet = false;
};

// "1,2,3" or "[1, 2]" or one id a line. kInvalidArgument names the word that is no id.
Result<std::vector<int32_t>> parse_ids(const std::string& text);
Result<std::string> read_file(const std::string& path);   // "-": standard input
// To `path`, or to standard output when it is empty. kIo.
Status write_output(const std::string& path, std::string_view bytes);
Result<std::string> decode_base64(std::string_view text);

// What --precision, --kv, --context and the storages ask for.
Result<LoadOptions> load_options(const Common& common);
// Opens the device and loads the model with room for `tokens`.
Result<Model> load_model(const Common& common, int64_t tokens, bool all_logits);
// What --profile and --dump-plan ask for, to standard error.
class Report {
 public:
  Report(const Common& common, const Model& model);
  ~Report();
  Report(const Report&) = delete;

 private:
  const Model& model_;
  bool enabled_;
  Profile profile_;
};

Status run_logits(const Common& common, const std::string& tokens, bool last);
Status run_greedy(const Common& common, const std::string& tokens, int32_t count, bool ignore_eos);
Status run_tokenize(const Common& common, const std::string& jsonl, bool parse_special);
Status run_detokenize(const Common& common, const std::string& tokens);
Status run_template(const Common& common, const std::string& messages, bool add_generation_prompt);
Status run_check(const Common& common);
Status run_device(const Common& common);
// `target`: opencl, vulkan, or empty for the profile's own. `chunk`: the step of so many tokens alone; 0: all.
Status run_plan(const Common& common, const std::string& profile, const std::string& target, int64_t chunk);
Status run_perplexity(const Common& common, const std::string& file, int32_t context, int32_t stride);

}  // namespace tessera::eval
