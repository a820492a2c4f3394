#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "common.hpp"

namespace tessera::eval {

namespace {
std::string_view bytes_of(const std::vector<float>& values) { return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)}; }

std::string line_of(const std::vector<int32_t>& ids) {
  std::string text;
  for (size_t i = 0; i < ids.size(); ++i) text += (i == 0 ? "" : ",") + std::to_string(ids[i]);
  return text + "\n";
}

Result<Tokenizer> open_tokenizer(const Common& common) {
  TESSERA_ASSIGN(const TokenizerTables tables, read_tokenizer_tables(common.model));
  return Tokenizer::create(tables);
}

// −log p(id) under softmax(row), in double.
double negative_log_likelihood(std::span<const float> row, int32_t id) {
  double top = -INFINITY, sum = 0.0;
  for (float v : row) top = std::max(top, static_cast<double>(v));
  for (float v : row) sum += std::exp(static_cast<double>(v) - top);
  return top + std::log(sum) - static_cast<double>(row[static_cast<size_t>(id)]);
}
}  // namespace

Status run_logits(const Common& common, const std::string& tokens, bool last) {
  TESSERA_ASSIGN(const std::vector<int32_t> ids, parse_ids(tokens));
  TESSERA_ASSIGN(const Model model, load_model(common, static_cast<int64_t>(ids.size()), !last));
  const Report report(common, model);
  Sequence sequence(model.runtime());
  std::vector<float> rows;
  const auto keep = [&](std::span<const float> chunk) -> Status {
    rows.insert(rows.end(), chunk.begin(), chunk.end());
    return {};
  };
  TESSERA_TRY(sequence.append(ids, nullptr, keep, last ? LogitRows::kLast : LogitRows::kAll));
  return write_output(common.out, bytes_of(rows));
}

Status run_greedy(const Common& common, const std::string& tokens, int32_t count, bool ignore_eos) {
  TESSERA_ASSIGN(const std::vector<int32_t> ids, parse_ids(tokens));
  if (count < 1) return fail(ErrorCode::kInvalidArgument, cat("--n is ", count, "; it must be at least 1"));
  TESSERA_ASSIGN(const Model model, load_model(common, static_cast<int64_t>(ids.size()) + count, false));
  const Report report(common, model);
  Sequence sequence(model.runtime());
  std::vector<int32_t> made;
  std::vector<int32_t> next = ids;
  while (static_cast<int32_t>(made.size()) < count) {
    TESSERA_ASSIGN(const int32_t id, sequence.append(next));
    made.push_back(id);
    if (!ignore_eos && model.tokenizer() && model.tokenizer()->ends_text(id)) break;
    next = {id};
  }
  return write_output(common.out, line_of(made));
}

Status run_tokenize(const Common& common, const std::string& jsonl, bool parse_special) {
  TESSERA_ASSIGN(const Tokenizer tokenizer, open_tokenizer(common));
  std::string out;
  if (jsonl.empty()) {
    TESSERA_ASSIGN(const std::string text, read_file("-"));
    return write_output(common.out, line_of(tokenizer.encode(text, parse_special)));
  }
  TESSERA_ASSIGN(const std::string lines, read_file(jsonl));
  size_t number = 0;
  for (size_t at = 0; at < lines.size();) {
    const size_t end = std::min(lines.find('\n', at), lines.size());
    const auto entry = nlohmann::json::parse(lines.substr(at, end - at), nullptr, false);
    ++number;
    at = end + 1;
    const bool shaped = entry.is_object() && entry.contains("b64") && entry["b64"].is_string();
    if (!shaped) return fail(ErrorCode::kMalformed, cat(jsonl, ":", number, ": expected {\"b64\": \"…\", \"parse_special\": true or false}"));
    auto text = decode_base64(entry["b64"].get_ref<const std::string&>());
    if (!text) return fail(std::move(text).error().within(cat(jsonl, ":", number)));
    out += line_of(tokenizer.encode(*text, entry.value("parse_special", false)));
  }
  return write_output(common.out, out);
}

Status run_check(const Common& common) {
  TESSERA_ASSIGN(const ModelFile file, ModelFile::open(common.model));
  std::string text;
  for (const std::string& warning : file.warnings()) text += "warning: " + warning + "\n";
  TESSERA_TRY(file.check_values());
  return write_output(common.out, cat(text, file.path(), ": whole; ", file.weights().size(), " tensors, every weight is a finite number\n"));
}

Status run_detokenize(const Common& common, const std::string& tokens) {
  TESSERA_ASSIGN(const Tokenizer tokenizer, open_tokenizer(common));
  TESSERA_ASSIGN(const std::string text, tokens.empty() ? read_file("-") : Result<std::string>(tokens));
  TESSERA_ASSIGN(const std::vector<int32_t> ids, parse_ids(text));
  return write_output(common.out, tokenizer.decode(ids, true));
}

Status run_template(const Common& common, const std::string& messages, bool add_generation_prompt) {
  TESSERA_ASSIGN(const TokenizerTables tables, read_tokenizer_tables(common.model));
  TESSERA_ASSIGN(const ChatTemplate chat, ChatTemplate::create(tables.chat_template));
  TESSERA_ASSIGN(const std::string text, read_file(messages));
  const auto list = nlohmann::json::parse(text, nullptr, false);
  if (!list.is_array()) return fail(ErrorCode::kMalformed, cat(messages, ": expected a JSON list of {\"role\": …, \"content\": …}"));
  std::vector<ChatMessage> parsed;
  for (const auto& entry : list) {
    const bool shaped = entry.is_object() && entry.contains("role") && entry["role"].is_string() && entry.contains("content") && entry["content"].is_string();
    if (!shaped) return fail(ErrorCode::kMalformed, cat(messages, ": message ", parsed.size(), " has no text as role and content"));
    parsed.push_back({entry["role"], entry["content"]});
  }
  return write_output(common.out, chat.render_text(parsed, add_generation_prompt));
}

// Windows of `context` tokens, each `stride` further; a token's likelihood is taken where it has the longest context, once.
Status run_perplexity(const Common& common, const std::string& file, int32_t context, int32_t stride) {
  if (context < 2 || stride < 1 || stride >= context) return fail(ErrorCode::kInvalidArgument, cat("--context ", context, " --stride ", stride, ": needed are context ≥ 2 and 1 ≤ stride < context"));
  TESSERA_ASSIGN(const std::string text, read_file(file));
  TESSERA_ASSIGN(const Tokenizer tokenizer, open_tokenizer(common));
  const std::vector<int32_t> ids = tokenizer.encode(text, false);
  if (ids.size() < 2) return fail(ErrorCode::kInvalidArgument, cat(file, ": ", ids.size(), " tokens; a perplexity needs at least 2"));
  Common with_context = common;
  with_context.context = static_cast<int32_t>(round_up(context, kPageTokens));
  TESSERA_ASSIGN(const Model model, load_model(with_context, context, true));
  const Report report(common, model);
  double total = 0.0;
  size_t counted = 0, scored = 1;   // ids[scored] is the next token without a likelihood
  for (size_t first = 0; scored < ids.size(); first += static_cast<size_t>(stride)) {
    const size_t end = std::min(ids.size(), first + static_cast<size_t>(context));
    Sequence sequence(model.runtime());
    size_t at = first;   // position of the next row of logits
    const auto score = [&](std::span<const float> rows) -> Status {
      const size_t vocab = static_cast<size_t>(model.config().vocab_size);
      for (size_t r = 0; r < rows.size() / vocab; ++r, ++at) {
        if (at + 1 != scored || at + 1 >= end) continue;
        total += negative_log_likelihood(rows.subspan(r * vocab, vocab), ids[at + 1]);
        ++counted;
        ++scored;
      }
      return {};
    };
    TESSERA_TRY(sequence.append(std::span(ids).subspan(first, end - first), nullptr, score, LogitRows::kAll));
    if (!common.quiet) std::fprintf(stderr, "%zu of %zu tokens, perplexity so far %.4f\n", scored, ids.size(), std::exp(total / static_cast<double>(counted)));
  }
  char line[160];
  std::snprintf(line, sizeof line, "perplexity %.6f  mean_nll %.8f  tokens %zu\n", std::exp(total / static_cast<double>(counted)), total / static_cast<double>(counted), counted);
  return write_output(common.out, line);
}

}  // namespace tessera::eval
