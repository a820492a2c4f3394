// Results as llama-bench gives them: a Markdown table, CSV, a JSON list, or JSON lines.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace tessera::bench {

// A test's row: names and values in order. Lists are left out of CSV, and Markdown shows a choice of columns and the rest as lines below.
using Row = nlohmann::ordered_json;

class RowPrinter {
 public:
  // One of output_formats().
  explicit RowPrinter(std::string format) : format_(std::move(format)) {}
  void print(const Row& row);   // at once, so that a run that is cut short has said what it knew
  void end();

 private:
  void print_markdown(const Row& row);
  std::string format_;
  std::vector<Row> rows_;
};

inline std::vector<std::string> output_formats() { return {"md", "csv", "json", "jsonl"}; }

}  // namespace tessera::bench
