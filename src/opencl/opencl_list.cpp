#include "opencl_list.hpp"

#include "gpu/checks.hpp"
#include "opencl_kernel.hpp"
#include "opencl_memory.hpp"
#include "tessera/base/text.hpp"

namespace tessera::opencl {
namespace {

Result<cl_mem> bound_buffer(const Driver& driver, const gpu::Binding& binding) {
  auto* buffer = dynamic_cast<OpenClBuffer*>(binding.buffer);
  if (binding.image != nullptr || buffer == nullptr || &buffer->driver() != &driver)
    return fail(ErrorCode::kInvalidArgument, "needs a buffer of this device");
  return buffer->range(binding.offset, binding.bytes);
}

Result<cl_mem> bound_image(const Driver& driver, const gpu::Binding& binding, const KernelSlot& slot) {
  auto* image = dynamic_cast<OpenClImage*>(binding.image);
  if (binding.buffer != nullptr || image == nullptr || &image->driver() != &driver)
    return fail(ErrorCode::kInvalidArgument, "needs an image of this device");
  TESSERA_TRY(gpu::check_bound_image(slot, image->layout(), true, driver.info));   // images are created readable and writable
  return image->memory();
}

Status set_slots(Driver& driver, cl_kernel kernel, const LoweredKernel& lowered, const std::vector<gpu::Binding>& bindings) {
  for (size_t i = 0; i < bindings.size(); ++i) {
    const KernelSlot& slot = lowered.slots[i];
    auto memory = is_image(slot.storage) ? bound_image(driver, bindings[i], slot) : bound_buffer(driver, bindings[i]);
    if (!memory) return fail(std::move(memory).error().within(cat("slot ", i, " '", slot.tensor, "'")));
    const cl_mem object = *memory;
    TESSERA_TRY(driver.check(driver.cl.SetKernelArg(kernel, static_cast<cl_uint>(i), sizeof object, &object),
                             cat("clSetKernelArg of slot '", slot.tensor, "'")));
  }
  return {};
}

Status set_args(Driver& driver, cl_kernel kernel, const LoweredKernel& lowered, const std::vector<uint32_t>& args) {
  for (size_t i = 0; i < args.size(); ++i) {
    const auto index = static_cast<cl_uint>(lowered.slots.size() + i);
    TESSERA_TRY(
        driver.check(driver.cl.SetKernelArg(kernel, index, sizeof args[i], &args[i]), cat("clSetKernelArg of arg '", lowered.args[i].name, "'")));
  }
  return {};
}

// Device time of a finished event in microseconds.
Result<double> elapsed(Driver& driver, cl_event event) {
  cl_ulong start = 0, end = 0;
  TESSERA_TRY(
      driver.check(driver.cl.GetEventProfilingInfo(event, CL_PROFILING_COMMAND_START, sizeof start, &start, nullptr), "clGetEventProfilingInfo"));
  TESSERA_TRY(driver.check(driver.cl.GetEventProfilingInfo(event, CL_PROFILING_COMMAND_END, sizeof end, &end, nullptr), "clGetEventProfilingInfo"));
  return end > start ? static_cast<double>(end - start) * 1e-3 : 0.0;
}

}  // namespace

Status OpenClFence::wait() {
  TESSERA_TRY(driver_.alive());
  if (!last_ || stamp_ <= driver_.completed) return {};
  const cl_event event = last_.get();
  ++driver_.counters.synchronizations;
  TESSERA_TRY(driver_.check_wait(driver_.cl.WaitForEvents(1, &event), "clWaitForEvents"));
  driver_.finished_up_to(stamp_);
  return {};
}

Status OpenClCommandList::dispatch(const gpu::DispatchInfo& info) {
  TESSERA_TRY(driver_.alive());
  if (finished_) return fail(ErrorCode::kInvalidArgument, "dispatch after the list was finished");
  const auto* program = dynamic_cast<const OpenClKernel*>(info.kernel);
  if (program == nullptr || &program->driver() != &driver_) return fail(ErrorCode::kInvalidArgument, "dispatch without a kernel of this device");
  const LoweredKernel& lowered = program->lowered();

  auto recorded = [&]() -> Result<Recorded> {
    TESSERA_TRY(gpu::check_dispatch(lowered, info, driver_.info));
    Recorded made;
    TESSERA_ASSIGN(made.kernel, program->create_kernel());
    TESSERA_TRY(set_slots(driver_, made.kernel.get(), lowered, info.bindings));
    TESSERA_TRY(set_args(driver_, made.kernel.get(), lowered, info.args));
    for (size_t axis = 0; axis < 3; ++axis) {
      made.local[axis] = static_cast<size_t>(lowered.workgroup[axis]);
      made.global[axis] = static_cast<size_t>(info.workgroups[axis]) * made.local[axis];
    }
    made.label = info.label.empty() ? lowered.entry : std::string(info.label);
    return made;
  }();
  if (!recorded) return fail(std::move(recorded).error().within(cat("kernel '", lowered.entry, "'", info.label.empty() ? "" : " for ", info.label)));
  dispatches_.push_back(std::move(*recorded));
  return {};
}

Status OpenClCommandList::finish() {
  if (finished_) return fail(ErrorCode::kInvalidArgument, "the list is finished already");
  if (driver_.command_buffers.used && !dispatches_.empty()) {
    if (Status status = record(); !status)
      return fail(std::move(status).error().within("recording a list ($TESSERA_OPENCL_COMMAND_BUFFERS=off does without)"));
  }
  finished_ = true;
  ++driver_.counters.lists_recorded;
  return {};
}

// No sync points: on an in-order queue the commands of a buffer run in the order of their recording.
Status OpenClCommandList::record() {
  TESSERA_TRY(driver_.alive());
  const CommandBuffers& buffers = driver_.command_buffers;
  constexpr cl_command_buffer_properties_khr kSimultaneous[] = {CL_COMMAND_BUFFER_FLAGS_KHR, CL_COMMAND_BUFFER_SIMULTANEOUS_USE_KHR, 0};
  const cl_command_queue queue = driver_.queue.get();
  cl_int code = CL_SUCCESS;
  commands_ = Handle<cl_command_buffer_khr>(buffers.cl.CreateCommandBufferKHR(1, &queue, buffers.simultaneous ? kSimultaneous : nullptr, &code),
                                            buffers.cl.ReleaseCommandBufferKHR);
  TESSERA_TRY(driver_.check(code, "clCreateCommandBufferKHR"));
  for (const Recorded& dispatch : dispatches_) {
    code = buffers.cl.CommandNDRangeKernelKHR(commands_.get(), nullptr, nullptr, dispatch.kernel.get(), 3, nullptr, dispatch.global.data(),
                                              dispatch.local.data(), 0, nullptr, nullptr, nullptr);
    if (Status status = driver_.check(code, "clCommandNDRangeKernelKHR"); !status) return fail(std::move(status).error().within(dispatch.label));
  }
  return driver_.check(buffers.cl.FinalizeCommandBufferKHR(commands_.get()), "clFinalizeCommandBufferKHR");
}

Status OpenClCommandList::submittable() const {
  TESSERA_TRY(driver_.alive());
  if (!finished_) return fail(ErrorCode::kInvalidArgument, "submit of a list that is not finished");
  return {};
}

Status OpenClCommandList::enqueue(const Recorded& dispatch, cl_command_queue queue, Handle<cl_event>* event) {
  cl_event raw = nullptr;
  const cl_int code = driver_.cl.EnqueueNDRangeKernel(queue, dispatch.kernel.get(), 3, nullptr, dispatch.global.data(), dispatch.local.data(), 0,
                                                      nullptr, event != nullptr ? &raw : nullptr);
  if (auto status = driver_.check(code, "clEnqueueNDRangeKernel"); !status) return fail(std::move(status).error().within(dispatch.label));
  if (event != nullptr) *event = Handle<cl_event>(raw, driver_.cl.ReleaseEvent);
  ++driver_.counters.enqueues;
  ++driver_.counters.dispatches;
  return {};
}

Status OpenClCommandList::enqueue_recorded(Handle<cl_event>& event) {
  cl_event raw = nullptr;
  const CommandBufferApi& cl = driver_.command_buffers.cl;
  TESSERA_TRY(driver_.check(cl.EnqueueCommandBufferKHR(0, nullptr, commands_.get(), 0, nullptr, &raw), "clEnqueueCommandBufferKHR"));
  event = Handle<cl_event>(raw, driver_.cl.ReleaseEvent);
  ++driver_.counters.enqueues;
  driver_.counters.dispatches += dispatches_.size();
  return {};
}

Result<gpu::Fence*> OpenClCommandList::submit(int32_t times) {
  TESSERA_TRY(submittable());
  ++driver_.counters.submissions;
  for (int32_t run = 0; run < times; ++run) {
    if (commands_ && !driver_.command_buffers.simultaneous) TESSERA_TRY(fence_.wait());  // such a buffer is submitted again only when it is done
    const uint64_t stamp = driver_.last_kernels = driver_.stamp();
    Handle<cl_event> last;
    if (commands_) {
      TESSERA_TRY(enqueue_recorded(last));
    } else {
      for (const Recorded& dispatch : dispatches_)
        TESSERA_TRY(enqueue(dispatch, driver_.queue.get(), &dispatch == &dispatches_.back() ? &last : nullptr));
    }
    TESSERA_TRY(driver_.check(driver_.cl.Flush(driver_.queue.get()), "clFlush"));
    fence_.submitted(stamp, std::move(last));
  }
  return &fence_;
}

Result<gpu::Fence*> OpenClCommandList::submit_profiled() {
  TESSERA_TRY(submittable());
  TESSERA_TRY(driver_.drain());
  cl_int code = CL_SUCCESS;
  const Handle<cl_command_queue> queue(driver_.cl.CreateCommandQueue(driver_.context.get(), driver_.device, CL_QUEUE_PROFILING_ENABLE, &code),
                                       driver_.cl.ReleaseCommandQueue);
  TESSERA_TRY(driver_.check(code, "clCreateCommandQueue"));
  ++driver_.counters.submissions;
  const uint64_t stamp = driver_.stamp();
  std::vector<Handle<cl_event>> events(dispatches_.size());
  for (size_t i = 0; i < dispatches_.size(); ++i) TESSERA_TRY(enqueue(dispatches_[i], queue.get(), &events[i]));
  ++driver_.counters.synchronizations;
  TESSERA_TRY(driver_.check_wait(driver_.cl.Finish(queue.get()), "clFinish"));
  driver_.finished_up_to(stamp);
  std::vector<double> microseconds(events.size());
  for (size_t i = 0; i < events.size(); ++i) {
    TESSERA_ASSIGN(microseconds[i], elapsed(driver_, events[i].get()));
  }
  fence_.finished(stamp, std::move(microseconds));
  return &fence_;
}

}  // namespace tessera::opencl
