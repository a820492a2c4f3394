// The device that tests run on: the one that Device::open("auto") gives, which $TESSERA_DEVICE decides. tests/on_device.sh runs a test program on
// one of the devices that the tests know.
#pragma once
#include <gtest/gtest.h>

#include <cstdlib>

#include "tessera/engine/device.hpp"

namespace tessera::test {

// Rows that somebody measured on this machine must not decide what tests see. Programs that tests start inherit it.
inline const bool kShippedRows = setenv("TESSERA_TUNING", "off", 0) == 0;

// Opened once a process, and never closed: drivers tear themselves down at exit in an order of their own.
inline const Result<Device>& shared_device() {
  static const auto& opened = *new Result<Device>(Device::open("auto"));
  return opened;
}

// on_device.sh has found the driver's files: a device that does not open is a failure then.
inline bool must_have_a_device() { return std::getenv("TESSERA_TEST_DEVICE") != nullptr; }

}  // namespace tessera::test

// Ends a test whose device (a Result<Device>) could not be had.
#define TESSERA_NEEDS_DEVICE(device)                                                              \
  if (const auto& needed = (device); needed) {                                                    \
  } else if (tessera::test::must_have_a_device() || needed.error().code() != tessera::ErrorCode::kNotFound) { \
    FAIL() << needed.error().message();                                                           \
  } else                                                                                          \
    GTEST_SKIP() << "no device: " << needed.error().message()
