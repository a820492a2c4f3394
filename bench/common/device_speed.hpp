// What a device does at best, measured by small kernels of ours (bench/kernels): the yardsticks that other measurements are a share of.
//
// Devices differ in what they are fastest at (lanes, width of a vector, buffers or texel buffers), so each is tried in several forms and the fastest is kept.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "samples.hpp"
#include "tessera/gpu/gpu.hpp"

namespace tessera::bench {

struct Speed {
  std::string form;    // of the fastest: "W=16 lanes=1 workgroups=8 buffer"
  Samples rate;        // bytes or operations a second, one a repetition
};

// Reading about `bytes` (at least 1 MiB; less where one binding of the device holds less): as many as what is to be compared reads, so that caches give both the same.
Result<Speed> measure_read(gpu::Device& device, int64_t bytes);
// Reading half of `bytes` and writing as many; both are counted.
Result<Speed> measure_copy(gpu::Device& device, int64_t bytes);
// Multiply-adds of f32 in registers, two operations each.
Result<Speed> measure_peak(gpu::Device& device);

}  // namespace tessera::bench
