// Token pieces → text that may be shown: only whole characters, nothing of a stop string, nothing behind one.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tessera/base/status.hpp"
#include "tessera/base/text.hpp"
#include "tessera/base/utf8.hpp"

namespace tessera {

// Finds the first place where one of several strings ends, byte by byte, with memory of how much of one has been seen
// (Aho and Corasick, "Efficient string matching", CACM 1975). A byte costs O(1) amortized, however many strings there are.
class StopMatcher {
 public:
  StopMatcher() : states_(1) {}

  // `text` is not empty. Call prepare() after the last one.
  void add(std::string_view text) {
    int32_t state = 0;
    for (const char c : text) {
      int32_t next = child(state, c);
      if (next < 0) {
        next = static_cast<int32_t>(states_.size());
        states_.push_back({.depth = states_[index(state)].depth + 1});
        auto& edges = states_[index(state)].edges;
        edges.insert(std::upper_bound(edges.begin(), edges.end(), std::pair(c, next)), {c, next});
      }
      state = next;
    }
    states_[index(state)].matched = text.size();
  }

  // Links every state to that of its longest proper suffix, shorter states first.
  void prepare() {
    std::vector<int32_t> order = {0};
    for (size_t i = 0; i < order.size(); ++i) {
      const int32_t parent = order[i];
      for (const auto& [c, state] : states_[index(parent)].edges) {
        order.push_back(state);
        State& entered = states_[index(state)];
        entered.suffix = parent == 0 ? 0 : step(states_[index(parent)].suffix, c);
        if (entered.matched == 0) entered.matched = states_[index(entered.suffix)].matched;
      }
    }
  }

  void feed(char c) { state_ = step(state_, c); }
  // Bytes of the longest string that ends here; 0: none does.
  size_t matched() const { return states_[index(state_)].matched; }
  // Bytes fed last that may be the beginning of a string.
  size_t pending() const { return states_[index(state_)].depth; }

 private:
  struct State {
    size_t depth = 0;
    size_t matched = 0;
    int32_t suffix = 0;
    std::vector<std::pair<char, int32_t>> edges = {};  // sorted by byte
  };

  static size_t index(int32_t state) { return static_cast<size_t>(state); }

  int32_t child(int32_t state, char c) const {
    const auto& edges = states_[index(state)].edges;
    const auto found = std::lower_bound(edges.begin(), edges.end(), std::pair(c, int32_t{0}));
    return found != edges.end() && found->first == c ? found->second : -1;
  }

  int32_t step(int32_t state, char c) const {
    for (;; state = states_[index(state)].suffix) {
      if (const int32_t next = child(state, c); next >= 0) return next;
      if (state == 0) return 0;
    }
  }

  std::vector<State> states_;
  int32_t state_ = 0;
};

// The text that comes out depends on the bytes that go in, not on how they were cut into pieces. Ill-formed UTF-8 becomes U+FFFD.
// The stop string that ends first counts, of several that end together the longest; nothing of it is shown. Not for two threads at once.
class TextStream {
 public:
  // kInvalidArgument: a stop string is empty or not UTF-8 (it could never be met). Memory: about 60 bytes a byte of stop strings.
  static Result<TextStream> create(const std::vector<std::string>& stops) {
    TextStream stream;
    size_t longest = 0;
    for (size_t i = 0; i < stops.size(); ++i) {
      if (stops[i].empty()) return fail(ErrorCode::kInvalidArgument, cat("stop string ", i, " is empty"));
      if (!is_utf8(stops[i])) return fail(ErrorCode::kInvalidArgument, cat("stop string ", i, " is not UTF-8: '", escaped(stops[i]), "'"));
      stream.stops_.add(stops[i]);
      longest = std::max(longest, stops[i].size());
    }
    stream.stops_.prepare();
    stream.held_.reserve(longest + kUsualPiece);
    stream.shown_.reserve(longest + kUsualPiece);
    return stream;
  }

  // Takes a token's bytes; gives what may be shown now, valid until the next call. Allocates nothing for pieces of usual length.
  std::string_view push(std::string_view piece) {
    shown_.clear();
    while (!piece.empty() && !stopped_) piece.remove_prefix(take_character(piece));
    release(stops_.pending());
    return shown_;
  }

  // The end of the text: what was held back, with U+FFFD for half a character.
  std::string_view finish() {
    shown_.clear();
    if (!partial_.empty()) put(kReplacementText);
    partial_.clear();
    release(0);
    return shown_;
  }

  // A stop string was met: nothing more will be shown.
  bool stopped() const { return stopped_; }

 private:
  static constexpr size_t kUsualPiece = 256;

  // One character, or the rest of one, from the front of `piece`; gives the bytes used up.
  size_t take_character(std::string_view piece) {
    const Utf8Char whole = first_utf8(piece);
    if (partial_.empty() && whole.status == Utf8Status::kValid) {
      put(piece.substr(0, whole.bytes));
      return whole.bytes;
    }
    partial_ += piece[0];
    const Utf8Char c = first_utf8(partial_);
    if (c.status == Utf8Status::kIncomplete) return 1;
    const bool used = c.bytes == partial_.size();  // otherwise this byte showed that those before it are ill-formed, and begins anew
    put(c.status == Utf8Status::kValid ? std::string_view(partial_) : kReplacementText);
    partial_.clear();
    return used ? 1 : 0;
  }

  void put(std::string_view character) {
    for (const char c : character) {
      if (stopped_) return;
      held_ += c;
      stops_.feed(c);
      if (stops_.matched() == 0) continue;
      held_.resize(held_.size() - stops_.matched());
      stopped_ = true;
    }
  }

  // Shows what is held, but for its last `keep` bytes.
  void release(size_t keep) {
    if (stopped_) keep = 0;  // the stop string itself is gone already
    shown_.append(held_, 0, held_.size() - keep);
    held_.erase(0, held_.size() - keep);
  }

  StopMatcher stops_;
  std::string partial_;  // bytes of a character that is not complete: at most 3
  std::string held_;     // whole characters that are not shown yet
  std::string shown_;
  bool stopped_ = false;
};

}  // namespace tessera
