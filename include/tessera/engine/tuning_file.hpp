// Which rows measured on a device are in use, and the files that keep them (src/engine/tuning_file.cpp): FOLDER/tuning/KEY.json, the key a hash of the driver's
// identity. A file of another driver, of other kernels or of other shipped rows is not used; nor is one that is not whole.
#pragma once
#include <string>
#include <vector>

#include "tessera/base/status.hpp"
#include "tessera/device/device_info.hpp"
#include "tessera/device/tuned_rows.hpp"
#include "tessera/engine/options.hpp"

namespace tessera {

// Where a device's rows are kept; empty where nothing is kept on disk. `cache_folder`: as in LoadOptions.
std::string tuning_path(const DeviceInfo& info, const std::string& cache_folder);

// This library's kernels and the rows that it ships for the device: what measurements are of.
std::string tuning_made_for(const DeviceInfo& info);

// kNotFound, kIo; kMalformed, kUnsupported: those of tuned_rows_from_json.
Result<TunedRows> read_tuning_file(const std::string& path, const DeviceInfo& info);
// The file appears whole or not at all. kIo.
Status write_tuning_file(const std::string& path, const TunedRows& rows, const DeviceInfo& info);

struct TuningInUse {
  std::string path;                // empty: the rows that are shipped, alone
  std::vector<TuningRow> rows;
};

// By LoadOptions::tuning. Rows are measured in the default precision and where the rows shipped put things: options that choose otherwise leave them out.
// An error only where a file was asked for by name; another that cannot be used is left out, with a line for options.on_log.
Result<TuningInUse> tuning_in_use(const DeviceInfo& info, const LoadOptions& options);

}  // namespace tessera
