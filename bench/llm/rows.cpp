#include "rows.hpp"

#include <cmath>
#include <cstdio>

#include "tessera/base/text.hpp"

namespace tessera::bench {
namespace {

std::string number(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

// "12.3 (11.9 to 12.8)": the median, the least and the greatest.
std::string spread(const Row& row, const std::string& name, int digits) {
  return cat(number(row.at("median_" + name), digits), " (", number(row.at("min_" + name), digits), " to ", number(row.at("max_" + name), digits), ")");
}

std::string optional_number(const Row& row, const char* name, int digits) { return row.at(name).is_number() ? number(row.at(name), digits) : "–"; }

std::string list(const Row& values, int digits) {
  std::string text;
  for (const auto& value : values) text += (text.empty() ? "" : ", ") + number(value, digits);
  return text;
}

std::string csv_field(const Row& value) {
  const std::string text = value.is_string() ? value.get<std::string>() : value.is_null() ? "" : value.dump();
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + '"';
}

std::string csv_line(const Row& row, bool header) {
  std::string line;
  for (const auto& [name, value] : row.items())
    if (!value.is_array()) line += (line.empty() ? "" : ",") + (header ? name : csv_field(value));
  return line;
}

// What holds for all tests of a model, below its table.
std::string model_lines(const Row& row) {
  std::string text = cat("\ndevice: ", row.at("gpu_info").get<std::string>(), ", ", row.at("backends").get<std::string>(), ", driver ", row.at("driver").get<std::string>(), "; KV in ",
                         row.at("type_k").get<std::string>(), ", activations in ", row.at("type_activations").get<std::string>(), "; build ", row.at("build_commit").get<std::string>(), '\n');
  text += cat("reads ", number(row.at("read_gb_s"), 2), " GB/s (", number(row.at("read_min_gb_s"), 2), " to ", number(row.at("read_max_gb_s"), 2), "; ", row.at("read_form").get<std::string>(), "), copies ",
              number(row.at("copy_gb_s"), 2), " GB/s (", number(row.at("copy_min_gb_s"), 2), " to ", number(row.at("copy_max_gb_s"), 2), ")\n");
  text += cat("memory: device ", bytes_text(row.at("peak_device_bytes").get<uint64_t>()), " at most, host ", bytes_text(row.at("peak_host_bytes").get<uint64_t>()),
              " at most (on drivers that are CPUs this holds the device's, too)\n");
  if (!row.at("ttft_cold_samples_ms").empty())
    text += cat("start to first token behind ", row.at("ttft_prompt").get<int>(), " tokens: cold ", list(row.at("ttft_cold_samples_ms"), 0), " ms (weights ", number(row.at("ttft_cold_weights_ms"), 0), ", kernels ",
                number(row.at("ttft_cold_kernels_ms"), 0), ", prompt ", number(row.at("ttft_cold_prompt_ms"), 0), "; ", row.at("ttft_cold_compiled").get<uint64_t>(), " compiled), warm ",
                list(row.at("ttft_warm_samples_ms"), 0), " ms (weights ", number(row.at("ttft_warm_weights_ms"), 0), ", kernels ", number(row.at("ttft_warm_kernels_ms"), 0), ", prompt ",
                number(row.at("ttft_warm_prompt_ms"), 0), "; ", row.at("ttft_warm_compiled").get<uint64_t>(), " compiled)\n");
  if (row.at("check").is_string())
    text += cat("self-check: ", row.at("check").get<std::string>(), ", ", row.at("check_agree").get<int>(), " of ", row.at("check_tokens").get<int>(), " choices are those of ", row.at("check_against").get<std::string>(), '\n');
  return text + "t/s: greedy answers, 8 tokens a submission, as sessions are served; ms a token: one a submission. % of roofline: bytes a token once × t/s ÷ what the device reads\n";
}

}  // namespace

void RowPrinter::print(const Row& row) {
  if (format_ == "md") {
    print_markdown(row);
  } else if (format_ == "csv") {
    if (rows_.empty()) std::printf("%s\n", csv_line(row, true).c_str());
    std::printf("%s\n", csv_line(row, false).c_str());
  } else if (format_ == "jsonl") {
    std::printf("%s\n", row.dump(-1, ' ', false, Row::error_handler_t::replace).c_str());
  } else {
    std::printf("%s%s", rows_.empty() ? "[\n" : ",\n", row.dump(2, ' ', false, Row::error_handler_t::replace).c_str());
  }
  std::fflush(stdout);
  rows_.push_back(row);
}

void RowPrinter::print_markdown(const Row& row) {
  const bool same_model = !rows_.empty() && rows_.back().at("model_filename") == row.at("model_filename");
  if (!same_model && !rows_.empty()) std::printf("%s\n", model_lines(rows_.back()).c_str());
  if (!same_model)
    std::printf("| model | size | params | backend | test | t/s, median (least to greatest) | ms a token, p50 | p95 | dispatches a token | MB a token | ÷ once | %% of roofline |\n"
                "|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|\n");
  std::printf("| %s | %s | %.2f M | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", row.at("model_type").get<std::string>().c_str(), bytes_text(row.at("model_size").get<uint64_t>()).c_str(),
              static_cast<double>(row.at("model_n_params").get<int64_t>()) / 1e6, row.at("backends").get<std::string>().c_str(), row.at("test").get<std::string>().c_str(), spread(row, "ts", 2).c_str(),
              optional_number(row, "itl_p50_ms", 2).c_str(), optional_number(row, "itl_p95_ms", 2).c_str(), number(row.at("dispatches_per_token"), 1).c_str(),
              row.at("bytes_per_token").is_number() ? number(row.at("bytes_per_token").get<double>() / 1e6, 2).c_str() : "–", optional_number(row, "bytes_per_token_ratio", 3).c_str(),
              optional_number(row, "roofline_percent", 1).c_str());
}

void RowPrinter::end() {
  if (rows_.empty()) {
    if (format_ == "json") std::printf("[]\n");
    return;
  }
  if (format_ == "md") std::printf("%s", model_lines(rows_.back()).c_str());
  if (format_ == "json") std::printf("\n]\n");
  std::fflush(stdout);
}

}  // namespace tessera::bench
