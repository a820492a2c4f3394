// Repeated measurements of one thing, and what may be said of them.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace tessera::bench {

struct Samples {
  std::vector<double> values;

  // The value below which a share of the others lies, between neighbours on the line through them: 0 the least, 0.5 the median, 1 the greatest. 0 of none.
  double at(double share) const {
    if (values.empty()) return 0.0;
    std::vector<double> sorted = values;
    std::ranges::sort(sorted);
    const double place = share * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<size_t>(place);
    const size_t above = std::min(below + 1, sorted.size() - 1);
    return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
  }
  double median() const { return at(0.5); }
  double least() const { return at(0.0); }
  double greatest() const { return at(1.0); }

  double mean() const {
    double sum = 0.0;
    for (const double value : values) sum += value;
    return values.empty() ? 0.0 : sum / static_cast<double>(values.size());
  }
  // Of the sample: divided by n − 1.
  double deviation() const {
    if (values.size() < 2) return 0.0;
    double squares = 0.0;
    for (const double value : values) squares += (value - mean()) * (value - mean());
    return std::sqrt(squares / static_cast<double>(values.size() - 1));
  }
};

}  // namespace tessera::bench
