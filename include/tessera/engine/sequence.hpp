// Sequence: one run of tokens in the KV cache, at the level of ids. Sessions and evaluation are built on it.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "tessera/engine/prefill.hpp"
#include "tessera/engine/runtime.hpp"

namespace tessera {

// One thread at a time. Holds its pages until it is destroyed.
class Sequence {
 public:
  explicit Sequence(std::shared_ptr<Runtime> runtime) : runtime_(std::move(runtime)) {
    const std::lock_guard lock(runtime_->mutex());
    id_ = runtime_->cache().create();
    ids_.reserve(static_cast<size_t>(capacity()));   // a token that is run allocates nothing
  }
  ~Sequence() {
    if (runtime_ == nullptr) return;
    const std::lock_guard lock(runtime_->mutex());
    (void)runtime_->cache().free(id_);
  }
  Sequence(Sequence&&) noexcept = default;
  Sequence& operator=(Sequence&&) = delete;

  // The same tokens, going on by themselves from here. Shares every page: nothing is copied and nothing is run; the first of the two that writes into
  // a page they share, which can only be the last one, gets its own then.
  Result<Sequence> fork() const {
    const auto shared = [this] {
      const std::lock_guard lock(runtime_->mutex());
      return runtime_->cache().fork(id_);
    }();
    if (!shared) return fail(shared.error());
    Sequence child(runtime_, *shared);
    child.ids_.assign(ids_.begin(), ids_.end());
    return child;
  }

  // Rows of logits of each chunk, [rows, vocab_size], in order.
  using OnLogits = std::function<Status(std::span<const float> rows)>;

  // Runs `ids` behind what is there and gives the greedy choice for the token after them. `cancelled` is looked at between chunks:
  // kCancelled then. On any error the sequence is as before, but may have lost tokens of its last page where the device failed to copy that, and all where a window has gone on. With `logits`, the last row (kLast) or all rows (kAll) are read back.
  Result<int32_t> append(std::span<const int32_t> ids, const std::atomic<bool>* cancelled = nullptr, const OnLogits& on_logits = nullptr, LogitRows rows = LogitRows::kLast) {
    TESSERA_TRY(check(ids));
    const int32_t before = length();
    Result<int32_t> sampled = run_chunks(ids, cancelled, on_logits, rows);
    if (!sampled) (void)take_back(before);
    return sampled;
  }

  // Keeps what `ids` begins with, but not all of it, so that something is left to append; a longer beginning that other sequences left in the prefix
  // cache takes its place. Gives how many tokens the sequence holds then.
  Result<int32_t> keep(std::span<const int32_t> ids) {
    if (ids.empty()) return fail(ErrorCode::kInvalidArgument, "no tokens to begin with: the prompt is empty");
    TESSERA_TRY(truncate(std::min(common(ids), static_cast<int32_t>(ids.size()) - 1)));
    const int32_t own = length();
    const std::lock_guard lock(runtime_->mutex());
    PagedCache& cache = runtime_->cache();
    // A conversation that goes on has all that there is; asking for it would only count hits on its own pages.
    if (own >= cache.page_size().tokens()) return own;
    SequenceId other = cache.create();
    const auto adopted = cache.adopt(other, ids);
    if (adopted && *adopted > own) {
      std::swap(id_, other);
      ids_.assign(ids.begin(), ids.begin() + *adopted);
    }
    TESSERA_TRY(cache.free(other));
    if (!adopted) return fail(adopted.error());
    return length();
  }

  // How many tokens from the beginning `ids` has in common with what was run.
  int32_t common(std::span<const int32_t> ids) const {
    return static_cast<int32_t>(std::ranges::mismatch(ids, ids_).in1 - ids.begin());
  }

  // Forgets the tokens from `length` on; all, where the pages that the token behind them sees are let go (PagedCacheOptions::window).
  Status truncate(int32_t length) {
    const std::lock_guard lock(runtime_->mutex());
    TESSERA_ASSIGN(const int32_t kept, runtime_->cache().truncate(id_, length));
    ids_.resize(static_cast<size_t>(kept));
    return {};
  }

  // After the engine made an answer here: the sequence holds the tokens of `conversation` that were run.
  Status settle(std::span<const int32_t> conversation) {
    const std::lock_guard lock(runtime_->mutex());
    TESSERA_ASSIGN(const int32_t held, runtime_->cache().length(id_));
    TESSERA_ASSIGN(const int32_t kept, runtime_->cache().truncate(id_, std::min(static_cast<int32_t>(conversation.size()), held)));
    const auto run = conversation.first(static_cast<size_t>(kept));
    ids_.assign(run.begin(), run.end());
    return {};
  }

  SequenceId id() const { return id_; }   // for the engine
  // What was run, in order; valid until the next call that changes it.
  std::span<const int32_t> ids() const { return ids_; }
  int32_t length() const { return static_cast<int32_t>(ids_.size()); }
  int32_t capacity() const { return runtime_->cache().max_context_tokens(); }

 private:
  Sequence(std::shared_ptr<Runtime> runtime, SequenceId id) : runtime_(std::move(runtime)), id_(id) { ids_.reserve(static_cast<size_t>(capacity())); }

  // After a failure: the tokens up to `length`, or as many of them as the cache still has.
  Status take_back(int32_t length) {
    const int32_t held = [this] {
      const std::lock_guard lock(runtime_->mutex());
      return runtime_->cache().length(id_).value_or(0);
    }();
    return truncate(std::min(length, held));
  }

  Status check(std::span<const int32_t> ids) const {
    if (ids.empty()) return fail(ErrorCode::kInvalidArgument, "no tokens to run: the prompt is empty");
    for (size_t i = 0; i < ids.size(); ++i)
      if (ids[i] < 0 || ids[i] >= runtime_->config().vocab_size)
        return fail(ErrorCode::kInvalidArgument, cat("token ", i, " is ", ids[i], "; the vocabulary has ids 0 to ", runtime_->config().vocab_size - 1));
    const int64_t room = int64_t{capacity()} - length();
    if (static_cast<int64_t>(ids.size()) > room)
      return fail(ErrorCode::kContextFull, cat(ids.size(), " tokens do not fit: ", length(), " of the context's ", capacity(), " are taken"));
    return {};
  }

  Result<int32_t> run_chunks(std::span<const int32_t> ids, const std::atomic<bool>* cancelled, const OnLogits& on_logits, LogitRows rows) {
    int32_t sampled = -1;
    while (!ids.empty()) {
      if (cancelled != nullptr && cancelled->load(std::memory_order_relaxed)) return fail(ErrorCode::kCancelled, "cancelled");
      const int64_t left = static_cast<int64_t>(ids.size());
      const PrefillChunk chunk = rows == LogitRows::kAll ? all_logits_chunk(left) : prefill_chunk(left);
      const std::lock_guard lock(runtime_->mutex());
      TESSERA_TRY(runtime_->forward(id_, ids.first(static_cast<size_t>(chunk.tokens)), chunk.shape));
      ids_.insert(ids_.end(), ids.begin(), ids.begin() + chunk.tokens);
      ids = ids.subspan(static_cast<size_t>(chunk.tokens));
      TESSERA_TRY(runtime_->cache().publish(id_, ids_));
      if (chunk.shape.logits == LogitRows::kLast && !on_logits) {
        TESSERA_TRY(runtime_->read_sampled(1));
        TESSERA_ASSIGN(const SampledToken chosen, runtime_->sampled(0, length()));
        sampled = chosen.id;
      }
      if (chunk.shape.logits == LogitRows::kNone || !on_logits) continue;
      TESSERA_TRY(runtime_->read_logits(rows == LogitRows::kAll ? chunk.tokens : 1, logits_));
      TESSERA_TRY(on_logits(logits_));
    }
    return sampled;
  }

  std::shared_ptr<Runtime> runtime_;
  SequenceId id_{};
  std::vector<int32_t> ids_;
  std::vector<float> logits_;
};

}  // namespace tessera
