// Where the time of steps goes, by kernel form: count, microseconds, bytes, GB/s.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "tessera/plan/plan.hpp"

namespace tessera {

class Profile {
 public:
  void add(const Plan& plan, const std::vector<double>& microseconds) {
    for (size_t d = 0; d < plan.dispatches.size() && d < microseconds.size(); ++d) {
      Row& row = rows_[form_of(plan.dispatches[d])];
      ++row.count;
      row.microseconds += microseconds[d];
      row.bytes += plan.dispatches[d].bytes;
    }
  }

  // A table, the costliest first. Bytes are what a full chunk reads and writes at least once each.
  std::string table() const {
    std::vector<std::pair<std::string, Row>> sorted(rows_.begin(), rows_.end());
    std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second.microseconds > b.second.microseconds; });
    double total = 0.0;
    for (const auto& [form, row] : sorted) total += row.microseconds;
    std::string text = "      count           µs      %         MiB     GB/s  kernel (0 bytes: depends on the context)\n";
    for (const auto& [form, row] : sorted) {
      char line[128];
      std::snprintf(line, sizeof line, "%11llu %12.0f %6.1f %11.1f %8.2f  ", static_cast<unsigned long long>(row.count), row.microseconds, total > 0.0 ? 100.0 * row.microseconds / total : 0.0,
                    static_cast<double>(row.bytes) / 1048576.0, row.microseconds > 0.0 ? static_cast<double>(row.bytes) / row.microseconds / 1000.0 : 0.0);
      text += line + form + "\n";
    }
    return text;
  }

 private:
  struct Row {
    uint64_t count = 0;
    double microseconds = 0.0;
    int64_t bytes = 0;
  };

  // "gemv BITS=4 GATED=1 … quants:image2d": the kernel and what of its variant decides its speed.
  static std::string form_of(const Dispatch& dispatch) {
    std::string form = dispatch.variant.kernel;
    for (const char* name : {"BITS", "NORM", "GATED", "RESIDUAL", "TM"})
      if (const auto it = dispatch.variant.consts.find(name); it != dispatch.variant.consts.end() && it->second != 0) form += " " + std::string(name) + "=" + std::to_string(it->second);
    for (const auto& [slot, layout] : dispatch.variant.tensors)
      if (is_image(layout.storage)) form += " " + slot + ":" + std::string(name_of(layout.storage));
    if (dispatch.variant.consts.contains("PAIRS")) form += " dots:" + std::string(name_of(dispatch.variant.words.dot));   // of integers, never floats in disguise
    form += " W=" + std::to_string(dispatch.variant.words.vector_width);
    return form;
  }

  std::map<std::string, Row> rows_;
};

}  // namespace tessera
