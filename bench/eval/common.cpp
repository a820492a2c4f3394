#include "common.hpp"

#include <charconv>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>

namespace tessera::eval {

Result<std::vector<int32_t>> parse_ids(const std::string& text) {
  std::vector<int32_t> ids;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at < end) {
    if (std::string_view(" ,\t\r\n[]").find(*at) != std::string_view::npos) {
      ++at;
      continue;
    }
    int32_t id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc()) return fail(ErrorCode::kInvalidArgument, cat("'", escaped(std::string_view(at, static_cast<size_t>(std::min<ptrdiff_t>(end - at, 20)))), "' is no token id; expected numbers like 1,2,3"));
    ids.push_back(id);
    at = next;
  }
  if (ids.empty()) return fail(ErrorCode::kInvalidArgument, "no token ids given; expected numbers like 1,2,3");
  return ids;
}

Result<std::string> read_file(const std::string& path) {
  if (path == "-") return std::string(std::istreambuf_iterator<char>(std::cin), {});
  std::ifstream in(path, std::ios::binary);
  if (!in) return fail(ErrorCode::kNotFound, cat("cannot read ", path));
  std::string text{std::istreambuf_iterator<char>(in), {}};
  if (in.bad()) return fail(ErrorCode::kIo, cat("reading ", path, " failed"));
  return text;
}

Status write_output(const std::string& path, std::string_view bytes) {
  std::FILE* file = path.empty() ? stdout : std::fopen(path.c_str(), "wb");
  if (file == nullptr) return fail(ErrorCode::kIo, cat("cannot write ", path));
  const bool written = std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  const bool closed = path.empty() ? std::fflush(file) == 0 : std::fclose(file) == 0;
  if (!written || !closed) return fail(ErrorCode::kIo, cat("writing ", path.empty() ? "standard output" : path, " failed: is the disk full?"));
  return {};
}

// RFC 4648, section 4; padding optional.
Result<std::string> decode_base64(std::string_view text) {
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    if (c == '=') break;
    const size_t value = kAlphabet.find(c);
    if (value == std::string_view::npos) return fail(ErrorCode::kMalformed, cat("'", escaped(std::string_view(&c, 1)), "' in base64 text"));
    bits = bits << 6 | static_cast<uint32_t>(value);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    out += static_cast<char>(bits >> count & 255u);
  }
  return out;
}

namespace {
Result<std::optional<Storage>> storage_option(const std::string& name) {
  if (name.empty()) return std::optional<Storage>();
  const auto storage = storage_from_name(name);
  if (!storage) return fail(ErrorCode::kInvalidArgument, cat("no storage named '", escaped(name), "'; there are ", storage_names()));
  return storage;
}
}  // namespace

Result<LoadOptions> load_options(const Common& common) {
  LoadOptions options;
  options.precision = precision_from_name(common.precision).value_or(Precision::kDefault);
  options.kv = kv_type_from_name(common.kv).value_or(KvType::kDefault);
  options.context_tokens = common.context;
  TESSERA_ASSIGN(options.weight_storage, storage_option(common.weights_in));
  TESSERA_ASSIGN(options.activation_storage, storage_option(common.activations_in));
  return options;
}

Result<Model> load_model(const Common& common, int64_t tokens, bool all_logits) {
  TESSERA_ASSIGN(LoadOptions options, load_options(common));
  if (common.context == 0) options.context_tokens = static_cast<int32_t>(round_up(tokens, kPageTokens));
  options.all_logits = all_logits;
  options.on_log = [](LogLevel level, std::string_view line) {
    if (level == LogLevel::kWarning) std::fprintf(stderr, "warning: %.*s\n", static_cast<int>(line.size()), line.data());
  };
  const bool progress = !common.quiet;
  options.on_progress = [progress](const Progress& p) {
    if (progress && p.done == p.total) std::fprintf(stderr, "%.*s: %llu\n", static_cast<int>(p.stage.size()), p.stage.data(), static_cast<unsigned long long>(p.total));
  };
  TESSERA_ASSIGN(Device device, Device::open(common.device));
  // The trained context bounds what may be asked for; a shorter input needs no more than its own pages.
  TESSERA_ASSIGN(const ModelFile file, ModelFile::open(common.model));
  options.context_tokens = std::min(options.context_tokens, file.config().context_length);
  return Model::load(common.model, std::move(device), options);
}

Report::Report(const Common& common, const Model& model) : model_(model), enabled_(common.profile) {
  if (common.dump_plan) std::fputs(model.runtime()->dump_plans().c_str(), stderr);
  if (enabled_) model.runtime()->set_profile(&profile_);
}

Report::~Report() {
  if (!enabled_) return;
  model_.runtime()->set_profile(nullptr);
  std::fputs(profile_.table().c_str(), stderr);
}

}  // namespace tessera::eval
