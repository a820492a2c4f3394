#include "device_speed.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <utility>

#include "tessera/base/text.hpp"
#include "tessera/codegen/lower.hpp"
#include "tessera/ops/op.hpp"

namespace tessera {
const KernelLibrary& bench_kernels();   // cmake/EmbedKernels.cmake, from bench/kernels
}

namespace tessera::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Form {
  int width = 4;               // W
  int workgroup = 1;           // lanes
  int64_t workgroups = 1;
  Storage storage = Storage::kBuffer;   // of what is read
  int chains = 0;              // peak_mad

  std::string text() const { return cat("W=", width, " lanes=", workgroup, " workgroups=", workgroups, chains != 0 ? cat(" chains=", chains) : cat(" ", name_of(storage))); }
  int64_t lanes() const { return workgroup * workgroups; }
};

// One tensor of texels of W floats, filled with small numbers (zeros could be told apart from data by hardware, and subnormal ones cost time).
struct Tensor {
  Layout layout;
  std::unique_ptr<gpu::Buffer> buffer;
  std::unique_ptr<gpu::Image> image;

  gpu::Binding binding() const { return {buffer.get(), 0, buffer ? layout.object_bytes() : 0, image.get()}; }
};

Layout layout_of(const Form& form, Storage storage, int64_t texels) { return {storage, DType::kF32, form.width, {texels}}; }

Result<Tensor> make_tensor(gpu::Device& device, const Layout& layout) {
  Tensor tensor{layout, nullptr, nullptr};
  constexpr int64_t kAtOnce = int64_t{1} << 20;
  std::vector<float> numbers(static_cast<size_t>(std::max(kAtOnce, is_image(layout.storage) ? layout.line_bytes() : 0) / 4));   // an image takes whole lines
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = 0.5f + static_cast<float>(i % 251) / 512.0f;
  const auto bytes = std::as_bytes(std::span(numbers));
  if (is_image(layout.storage)) {
    TESSERA_ASSIGN(tensor.image, device.create_image(layout));
    const int64_t rows_at_once = std::max<int64_t>(1, kAtOnce / layout.line_bytes());
    for (int64_t row = 0; row < layout.lines(); row += rows_at_once) {
      const int64_t rows = std::min(rows_at_once, layout.lines() - row);
      TESSERA_TRY(device.write_rows(*tensor.image, row, rows, bytes.first(static_cast<size_t>(rows * layout.line_bytes()))));
    }
    return tensor;
  }
  TESSERA_ASSIGN(tensor.buffer, device.create_buffer(layout.object_bytes()));
  for (int64_t at = 0; at < layout.object_bytes(); at += kAtOnce)
    TESSERA_TRY(device.write(*tensor.buffer, at, bytes.first(static_cast<size_t>(std::min(kAtOnce, layout.object_bytes() - at)))));
  return tensor;
}

// A kernel of bench/kernels over some tensors, recorded: run() is one submission and its wait, in seconds.
class Recorded {
 public:
  static Result<Recorded> make(gpu::Device& device, const std::string& kernel, const Form& form, std::map<std::string, int64_t> consts, std::map<std::string, uint32_t> args,
                               std::vector<std::pair<std::string, Tensor>> tensors) {
    KernelVariant variant{.kernel = kernel, .consts = std::move(consts), .tensors = {}, .words = {}};
    variant.words.vector_width = form.width;
    for (const auto& [name, tensor] : tensors) {
      variant.tensors[name] = tensor.layout;
      variant.tensors[name].grid.front() = 1;
    }
    TESSERA_ASSIGN(const LoweredKernel lowered, lower(bench_kernels(), variant, device.target(), {}));
    Recorded recorded(device, std::move(tensors));
    TESSERA_ASSIGN(recorded.kernel_, device.compile(lowered));
    TESSERA_ASSIGN(recorded.list_, device.create_list());
    gpu::DispatchInfo info{.kernel = recorded.kernel_.get(), .bindings = {}, .args = {}, .workgroups = {form.workgroups, 1, 1}, .label = kernel};
    for (const KernelSlot& slot : lowered.slots)
      for (const auto& [name, tensor] : recorded.tensors_)
        if (name == slot.tensor) info.bindings.push_back(tensor.binding());
    for (const KernelArg& arg : lowered.args) info.args.push_back(args.at(arg.name));
    TESSERA_TRY(recorded.list_->dispatch(info));
    TESSERA_TRY(recorded.list_->finish());
    return recorded;
  }

  Result<double> run() {
    const auto start = Clock::now();
    TESSERA_ASSIGN(gpu::Fence* const fence, device_.submit(*list_));
    TESSERA_TRY(fence->wait());
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

 private:
  Recorded(gpu::Device& device, std::vector<std::pair<std::string, Tensor>> tensors) : device_(device), tensors_(std::move(tensors)) {}
  gpu::Device& device_;
  std::vector<std::pair<std::string, Tensor>> tensors_;   // outlive the list
  std::unique_ptr<gpu::Kernel> kernel_;
  std::unique_ptr<gpu::CommandList> list_;
};

// Lanes and widths that this device may run. On CPU drivers one lane with a wide vector is the fast form, or a few with narrow ones; GPUs want many lanes.
std::vector<Form> forms_of(const gpu::Device& device) {
  const DeviceInfo& info = device.info();
  std::vector<Form> forms;
  const std::vector<int> widths = device.target() == Target::kOpenCL ? std::vector<int>{4, 16} : std::vector<int>{4};
  for (const int width : widths)
    for (const int workgroup : {1, 8, 64, 256})
      for (const int64_t waves : {4, 64}) {
        if (workgroup > info.max_workgroup_size || (width == 16 && workgroup > 1) || (info.is_cpu ? workgroup > 64 : workgroup < 64)) continue;
        forms.push_back({.width = width, .workgroup = workgroup, .workgroups = waves * std::max(1, info.compute_units)});
      }
  return forms;
}

// The rate of `amount` things a run: the best of a few runs, to find the fastest form by.
constexpr int kTries = 3, kRepetitions = 31;
Result<double> try_out(Recorded& recorded, double amount) {
  TESSERA_TRY(recorded.run());
  double best = 0.0;
  for (int i = 0; i < kTries; ++i) {
    TESSERA_ASSIGN(const double seconds, recorded.run());
    best = std::max(best, amount / seconds);
  }
  return best;
}

// The fastest of `forms`, once more. make(form) gives what is to be run and how much of it; an error of one form, which the device need not support, leaves it out.
template <class Make>
Result<Speed> fastest(const std::vector<Form>& forms, Make&& make) {
  double best = 0.0;
  const Form* found = nullptr;
  Error last(ErrorCode::kUnsupported, "no form of the measuring kernel fits this device");
  for (const Form& form : forms) {
    auto made = make(form);
    if (!made) { last = made.error(); continue; }
    const auto rate = try_out(made->first, made->second);
    if (!rate) { last = rate.error(); continue; }
    if (*rate > best) { best = *rate; found = &form; }
  }
  if (found == nullptr) return fail(std::move(last));
  TESSERA_ASSIGN(auto made, make(*found));
  Speed speed{found->text(), {}};
  TESSERA_TRY(made.first.run());
  for (int i = 0; i < kRepetitions; ++i) {
    TESSERA_ASSIGN(const double seconds, made.first.run());
    speed.rate.values.push_back(made.second / seconds);
  }
  return speed;
}

// Texels that a lane takes of `bytes`, a multiple of 4.
int64_t items_of(const gpu::Device& device, const Form& form, int64_t bytes) {
  const StorageLimits limits = device.info().storage_limits();
  bytes = std::min(bytes, limits.max_buffer_bytes);
  if (form.storage == Storage::kImageBuffer) bytes = std::min(bytes, limits.max_image_buffer_texels * 16);
  return bytes / (form.lanes() * form.width * 4) / 4 * 4;
}

}  // namespace

Result<Speed> measure_read(gpu::Device& device, int64_t bytes) {
  std::vector<Form> forms = forms_of(device);
  for (size_t i = 0, count = forms.size(); i < count; ++i)
    if (forms[i].width == 4 && device.info().max_image_buffer_texels > 0) {
      forms.push_back(forms[i]);
      forms.back().storage = Storage::kImageBuffer;
    }
  return fastest(forms, [&](const Form& form) -> Result<std::pair<Recorded, double>> {
    const int64_t items = items_of(device, form, std::max(bytes, int64_t{1} << 20));
    if (items == 0) return fail(ErrorCode::kLimit, "too few bytes for so many lanes");
    std::vector<std::pair<std::string, Tensor>> tensors;
    TESSERA_ASSIGN(Tensor x, make_tensor(device, layout_of(form, form.storage, items * form.lanes())));
    TESSERA_ASSIGN(Tensor sums, make_tensor(device, layout_of(form, Storage::kBuffer, form.lanes())));
    const auto amount = static_cast<double>(x.layout.object_bytes());
    tensors.emplace_back("x", std::move(x));
    tensors.emplace_back("sums", std::move(sums));
    TESSERA_ASSIGN(Recorded recorded, Recorded::make(device, "stream_read", form, {{"WG", form.workgroup}}, {{"items", arg_bits(items)}}, std::move(tensors)));
    return std::pair(std::move(recorded), amount);
  });
}

Result<Speed> measure_copy(gpu::Device& device, int64_t bytes) {
  return fastest(forms_of(device), [&](const Form& form) -> Result<std::pair<Recorded, double>> {
    const int64_t items = items_of(device, form, std::max(bytes, int64_t{1} << 20) / 2);
    if (items == 0) return fail(ErrorCode::kLimit, "too few bytes for so many lanes");
    std::vector<std::pair<std::string, Tensor>> tensors;
    TESSERA_ASSIGN(Tensor x, make_tensor(device, layout_of(form, Storage::kBuffer, items * form.lanes())));
    TESSERA_ASSIGN(Tensor y, make_tensor(device, x.layout));
    const auto amount = 2.0 * static_cast<double>(x.layout.object_bytes());
    tensors.emplace_back("x", std::move(x));
    tensors.emplace_back("y", std::move(y));
    TESSERA_ASSIGN(Recorded recorded, Recorded::make(device, "stream_copy", form, {{"WG", form.workgroup}}, {{"items", arg_bits(items)}}, std::move(tensors)));
    return std::pair(std::move(recorded), amount);
  });
}

Result<Speed> measure_peak(gpu::Device& device) {
  std::vector<Form> forms;
  for (const Form& form : forms_of(device))
    for (const int chains : {4, 8, 16}) {   // two units of four steps each are full with 8 when nothing ever waits, with 16 always
      forms.push_back(form);
      forms.back().chains = chains;
    }
  return fastest(forms, [&](const Form& form) -> Result<std::pair<Recorded, double>> {
    constexpr double kOperations = 2e8;   // milliseconds on two cores
    const double a_round = 2.0 * form.chains * form.width * static_cast<double>(form.lanes());
    const auto rounds = std::max<int64_t>(16, static_cast<int64_t>(kOperations / a_round));
    std::vector<std::pair<std::string, Tensor>> tensors;
    TESSERA_ASSIGN(Tensor x, make_tensor(device, layout_of(form, Storage::kBuffer, 2)));
    TESSERA_ASSIGN(Tensor sums, make_tensor(device, layout_of(form, Storage::kBuffer, form.lanes())));
    tensors.emplace_back("x", std::move(x));
    tensors.emplace_back("sums", std::move(sums));
    TESSERA_ASSIGN(Recorded recorded, Recorded::make(device, "peak_mad", form, {{"WG", form.workgroup}, {"CHAINS", form.chains}}, {{"rounds", arg_bits(rounds)}}, std::move(tensors)));
    return std::pair(std::move(recorded), a_round * static_cast<double>(rounds));
  });
}

}  // namespace tessera::bench
