#include <algorithm>

#include "gpu/checks.hpp"
#include "tessera/base/text.hpp"
#include "tessera/gpu/gpu.hpp"

namespace tessera::gpu {
namespace {

// What the objects of one null device share.
struct NullState {
  DeviceInfo info;
  Counters counters;
  std::vector<std::string> log;

  void note_memory(int64_t bytes) {
    counters.device_bytes += static_cast<uint64_t>(bytes);
    counters.peak_device_bytes = std::max(counters.peak_device_bytes, counters.device_bytes);
  }
};

class NullBuffer final : public Buffer {
 public:
  NullBuffer(NullState& state, int64_t bytes) : state_(state), bytes_(bytes) {
    ++state_.counters.buffers_created;
    state_.note_memory(bytes);
  }
  ~NullBuffer() override { state_.note_memory(-bytes_); }
  int64_t bytes() const override { return bytes_; }

 private:
  NullState& state_;
  int64_t bytes_;
};

class NullImage final : public Image {
 public:
  NullImage(NullState& state, const Layout& layout) : state_(state), layout_(layout) {
    ++state_.counters.images_created;
    state_.note_memory(layout.object_bytes());
  }
  ~NullImage() override { state_.note_memory(-layout_.object_bytes()); }
  const Layout& layout() const override { return layout_; }

 private:
  NullState& state_;
  Layout layout_;
};

class NullKernel final : public Kernel {
 public:
  explicit NullKernel(const LoweredKernel& lowered) : lowered_(lowered) {}
  const LoweredKernel& lowered() const override { return lowered_; }
  Result<std::vector<std::byte>> binary() const override { return std::vector<std::byte>{}; }

 private:
  LoweredKernel lowered_;
};

class NullFence final : public Fence {
 public:
  explicit NullFence(NullState& state) : state_(state) {}
  Status wait() override {
    ++state_.counters.synchronizations;
    return {};
  }
  std::vector<double> dispatch_microseconds() const override { return {}; }

 private:
  NullState& state_;
};

Status check_binding(const Binding& binding, const KernelSlot& slot, const DeviceInfo& info) {
  if (is_image(slot.storage)) {
    if (binding.image == nullptr || binding.buffer != nullptr || binding.image->layout().storage != slot.storage)
      return fail(ErrorCode::kInvalidArgument, cat("needs an object of storage ", name_of(slot.storage)));
    return {};
  }
  if (binding.buffer == nullptr || binding.image != nullptr) return fail(ErrorCode::kInvalidArgument, "needs a buffer");
  TESSERA_TRY(check_range(binding.offset, binding.bytes, binding.buffer->bytes(), "bytes"));
  if (binding.bytes == 0) return fail(ErrorCode::kInvalidArgument, "a binding of 0 bytes");
  if (binding.offset % info.buffer_offset_alignment != 0)
    return fail(ErrorCode::kInvalidArgument, cat("offset ", binding.offset, " is not a multiple of ", info.buffer_offset_alignment));
  if (binding.bytes > info.max_binding_bytes)
    return fail(ErrorCode::kLimit, cat("binds ", binding.bytes, " bytes; ", info.name, " allows ", info.max_binding_bytes));
  return {};
}

std::string binding_text(const Binding& binding, const KernelSlot& slot) {
  if (binding.image != nullptr)
    return cat(slot.tensor, "=", name_of(slot.storage), " ", text_of(binding.image->layout().extent()));
  return cat(slot.tensor, "=buffer[", binding.offset, "+", binding.bytes, "]");
}

std::string dispatch_text(const DispatchInfo& info) {
  const LoweredKernel& lowered = info.kernel->lowered();
  std::string line =
      cat(info.label.empty() ? std::string_view(lowered.entry) : info.label, ": ", lowered.entry, " grid ", info.workgroups[0], "x",
          info.workgroups[1], "x", info.workgroups[2], " of ", lowered.workgroup[0], "x", lowered.workgroup[1], "x", lowered.workgroup[2]);
  for (size_t i = 0; i < info.bindings.size(); ++i) line += cat(" ", binding_text(info.bindings[i], lowered.slots[i]));
  for (size_t i = 0; i < info.args.size(); ++i) line += cat(" ", lowered.args[i].name, "=", info.args[i]);
  return line;
}

class NullList final : public CommandList {
 public:
  explicit NullList(NullState& state) : state_(state), fence_(state) {}

  Status dispatch(const DispatchInfo& info) override {
    if (finished_) return fail(ErrorCode::kInvalidArgument, "dispatch after the list was finished");
    if (info.kernel == nullptr) return fail(ErrorCode::kInvalidArgument, "dispatch without a kernel");
    if (auto status = check(info); !status) return fail(std::move(status).error().within(cat("kernel '", info.kernel->lowered().entry, "'")));
    lines_.push_back(dispatch_text(info));
    return {};
  }
  Status finish() override {
    if (finished_) return fail(ErrorCode::kInvalidArgument, "the list is finished already");
    finished_ = true;
    ++state_.counters.lists_recorded;
    return {};
  }
  size_t size() const override { return lines_.size(); }

  bool finished() const { return finished_; }
  const std::vector<std::string>& lines() const { return lines_; }
  Fence& fence() { return fence_; }

 private:
  Status check(const DispatchInfo& info) const {
    const LoweredKernel& lowered = info.kernel->lowered();
    if (info.bindings.size() != lowered.slots.size())
      return fail(ErrorCode::kInvalidArgument, cat("has ", lowered.slots.size(), " slots, ", info.bindings.size(), " bindings were given"));
    if (info.args.size() != lowered.args.size())
      return fail(ErrorCode::kInvalidArgument, cat("has ", lowered.args.size(), " args, ", info.args.size(), " were given"));
    if (info.args.size() * 4 > static_cast<size_t>(state_.info.max_argument_bytes))
      return fail(ErrorCode::kLimit, cat(info.args.size() * 4, " bytes of args; ", state_.info.name, " allows ", state_.info.max_argument_bytes));
    for (size_t axis = 0; axis < 3; ++axis)
      if (info.workgroups[axis] < 1 || info.workgroups[axis] > state_.info.max_grid[axis])
        return fail(ErrorCode::kLimit, cat(info.workgroups[axis], " workgroups on axis ", axis, "; allowed: 1 to ", state_.info.max_grid[axis]));
    for (size_t i = 0; i < info.bindings.size(); ++i)
      if (auto status = check_binding(info.bindings[i], lowered.slots[i], state_.info); !status)
        return fail(std::move(status).error().within(cat("slot ", i, " '", lowered.slots[i].tensor, "'")));
    return {};
  }

  NullState& state_;
  NullFence fence_;
  std::vector<std::string> lines_;
  bool finished_ = false;
};

class NullDeviceImpl final : public NullDevice {
 public:
  NullDeviceImpl(const DeviceInfo& info, Target target) : target_(target) { state_.info = info; }

  const DeviceInfo& info() const override { return state_.info; }
  Target target() const override { return target_; }
  std::string_view compile_options() const override { return {}; }
  const Counters& counters() const override { return state_.counters; }
  const std::vector<std::string>& log() const override { return state_.log; }

  Result<std::unique_ptr<Buffer>> create_buffer(int64_t bytes) override {
    if (bytes <= 0) return fail(ErrorCode::kInvalidArgument, cat("a buffer of ", bytes, " bytes"));
    TESSERA_TRY(check_memory(bytes));
    return std::make_unique<NullBuffer>(state_, bytes);
  }

  Result<std::unique_ptr<Image>> create_image(const Layout& layout) override {
    if (!is_image(layout.storage)) return fail(ErrorCode::kUnsupported, cat("storage ", name_of(layout.storage), " as an image"));
    if (layout.grid.empty() || layout.texels() <= 0) return fail(ErrorCode::kInvalidArgument, "an image without texels");
    if (auto status = check_limits(layout, state_.info.storage_limits()); !status) return fail(std::move(status).error().within(state_.info.name));
    TESSERA_TRY(check_memory(layout.object_bytes()));
    return std::make_unique<NullImage>(state_, layout);
  }

  Result<std::unique_ptr<Kernel>> compile(const LoweredKernel& lowered) override {
    TESSERA_TRY(check_workgroup(lowered));
    ++state_.counters.programs_compiled;
    ++state_.counters.kernels_created;
    return std::make_unique<NullKernel>(lowered);
  }
  Result<std::unique_ptr<Kernel>> load(const LoweredKernel&, std::span<const std::byte>) override {
    return fail(ErrorCode::kUnsupported, "the null device has no binaries");
  }
  Result<std::unique_ptr<CommandList>> create_list() override { return std::make_unique<NullList>(state_); }

  Status write(Buffer& buffer, int64_t offset, std::span<const std::byte> bytes) override {
    TESSERA_TRY(check_range(offset, static_cast<int64_t>(bytes.size()), buffer.bytes(), "write of bytes"));
    state_.counters.bytes_written += bytes.size();
    return {};
  }
  Status read(const Buffer& buffer, int64_t offset, std::span<std::byte> bytes) override {
    TESSERA_TRY(check_range(offset, static_cast<int64_t>(bytes.size()), buffer.bytes(), "read of bytes"));
    return answer_zeros(bytes);
  }
  Status fill_zero(Buffer& buffer, int64_t offset, int64_t bytes) override { return check_range(offset, bytes, buffer.bytes(), "fill of bytes"); }
  Status copy(std::span<const BufferCopy> copies) override {
    for (const BufferCopy& each : copies) TESSERA_TRY(check_copy(each));
    if (!copies.empty()) state_.log.push_back(cat("copy of ", copies.size(), " ranges"));
    return {};
  }
  Status write_rows(Image& image, int64_t row, int64_t rows, std::span<const std::byte> bytes) override {
    TESSERA_TRY(check_rows(image, row, rows, bytes.size()));
    state_.counters.bytes_written += bytes.size();
    return {};
  }
  Status read_rows(const Image& image, int64_t row, int64_t rows, std::span<std::byte> bytes) override {
    TESSERA_TRY(check_rows(image, row, rows, bytes.size()));
    return answer_zeros(bytes);
  }

  Result<Fence*> submit(CommandList& list, const SubmitOptions& options) override {
    TESSERA_TRY(check_times(options));
    auto* mine = dynamic_cast<NullList*>(&list);
    if (mine == nullptr || !mine->finished()) return fail(ErrorCode::kInvalidArgument, "submit of a list that is not finished");
    ++state_.counters.submissions;
    for (int32_t run = 0; run < options.times; ++run) {
      ++state_.counters.enqueues;
      state_.counters.dispatches += mine->size();
      state_.log.insert(state_.log.end(), mine->lines().begin(), mine->lines().end());
    }
    return &mine->fence();
  }

 private:
  Status check_memory(int64_t bytes) const {
    const DeviceInfo& info = state_.info;
    if (bytes > info.max_allocation_bytes)
      return fail(ErrorCode::kLimit, cat("an object of ", bytes, " bytes; ", info.name, " allows ", info.max_allocation_bytes));
    if (bytes > info.global_memory_bytes - static_cast<int64_t>(state_.counters.device_bytes))
      return fail(ErrorCode::kOutOfMemory,
                  cat(bytes, " more bytes; ", info.name, " has ", info.global_memory_bytes, " and ", state_.counters.device_bytes, " are in use"));
    return {};
  }
  Status check_workgroup(const LoweredKernel& lowered) const {
    const DeviceInfo& info = state_.info;
    int64_t items = 1;
    for (size_t axis = 0; axis < 3; ++axis) {
      items *= lowered.workgroup[axis];
      if (lowered.workgroup[axis] < 1 || lowered.workgroup[axis] > info.max_workgroup_extent[axis] || items > info.max_workgroup_size)
        return fail(ErrorCode::kLimit,
                    cat("kernel '", lowered.entry, "': a workgroup of ", lowered.workgroup[0], " x ", lowered.workgroup[1], " x ",
                        lowered.workgroup[2], "; ", info.name, " allows ", info.max_workgroup_extent[0], " x ", info.max_workgroup_extent[1], " x ",
                        info.max_workgroup_extent[2], " and ", info.max_workgroup_size, " items"));
    }
    return {};
  }
  static Status check_rows(const Image& image, int64_t row, int64_t rows, size_t bytes) {
    TESSERA_TRY(check_range(row, rows, image.layout().lines(), "rows"));
    const int64_t needed = rows * image.layout().line_bytes();
    if (bytes == static_cast<size_t>(needed)) return {};
    return fail(ErrorCode::kInvalidArgument, cat(rows, " image rows take ", needed, " bytes, ", bytes, " were given"));
  }
  Status answer_zeros(std::span<std::byte> bytes) {
    std::fill(bytes.begin(), bytes.end(), std::byte{0});
    state_.counters.bytes_read += bytes.size();
    ++state_.counters.synchronizations;
    return {};
  }

  NullState state_;
  Target target_;
};

}  // namespace

std::unique_ptr<NullDevice> make_null_device(const DeviceInfo& info, Target target) { return std::make_unique<NullDeviceImpl>(info, target); }

}  // namespace tessera::gpu
