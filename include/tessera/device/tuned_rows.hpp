// Tuning rows that were found by measuring on a device (`tessera-bench tune`), as text: what they were measured on, and what each of them gained.
//
// A file of them is input like any other: it may be cut off, of another device, or hostile. A row that was read sets only what rows may set (of op_settings()
// one of their values, and the choices of layout and fusion that change no number's precision), within what the device allows.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "tessera/base/status.hpp"
#include "tessera/device/device_info.hpp"
#include "tessera/device/tuning.hpp"

namespace tessera {

struct TunedRow {
  TuningRow row;                // for one shape, or, without one, for the device; setting nothing: as shipped is best
  double shipped_us = 0.0;      // microseconds of all such ops of a step, with the rows that were shipped
  double tuned_us = 0.0;        // and with this one
};

struct TunedRows {
  std::string made_for;         // what the measurements are of, besides the device: another library's would mislead
  std::vector<TunedRow> rows;

  std::vector<TuningRow> tuning_rows() const;   // those that set something, in order
};

// "gemv_workgroup 4, gemm_tokens 8"; "as shipped" where the row sets nothing.
std::string settings_text(const TuningRow& row);

// What rows are measured with, as far as the device layer knows: every setting that the device gets from the rows shipped.
std::string shipped_settings(const DeviceInfo& info);

std::string to_json(const TunedRows& tuned, const DeviceInfo& info);

// kMalformed: it is no such text, or says what no row may say; kUnsupported: it is of another device, driver or library, or asks for what the device has not.
// `is_op`: whether there is an op of that name.
Result<TunedRows> tuned_rows_from_json(std::string_view json, const DeviceInfo& info, std::string_view made_for, bool (*is_op)(std::string_view name));

// The parts of a driver's identity.
std::vector<std::string> driver_identity(const DeviceInfo& info);

}  // namespace tessera
