// Which family a device belongs to, told from what its driver says. Families are what tuning rows are written for.
#pragma once
#include <cctype>
#include <string>
#include <string_view>

#include "tessera/device/device_info.hpp"

namespace tessera {

enum class GpuFamily { kOther, kCpu, kAdreno6xx, kAdreno7xx, kAdreno8xx, kMaliBifrost, kMaliValhall };

constexpr std::string_view name_of(GpuFamily family) {
  constexpr std::string_view kNames[] = {"other", "cpu", "adreno-6xx", "adreno-7xx", "adreno-8xx", "mali-bifrost", "mali-valhall"};
  return kNames[static_cast<int>(family)];
}

namespace detail {
inline std::string lower_case(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}
// The first number that follows `word` in `text` ("adreno (tm) 740" → 740, "mali-g610" → 610); 0 if there is none.
inline int number_after(std::string_view text, std::string_view word) {
  size_t at = text.find(word);
  if (at == std::string_view::npos) return 0;
  at += word.size();
  while (at < text.size() && !std::isdigit(static_cast<unsigned char>(text[at]))) ++at;
  int number = 0;
  for (; at < text.size() && std::isdigit(static_cast<unsigned char>(text[at])) && number < 100000; ++at) number = number * 10 + (text[at] - '0');
  return number;
}
}  // namespace detail

// Adreno: OpenCL drivers may leave the number out of the device's name; the version string has it ("OpenCL 2.0 Adreno(TM) 640").
// Mali: the Bifrost GPUs are G31, G51, G52, G71, G72, G76; everything numbered later (G57, G68, G77, G78, G310 …) is Valhall or its successors.
inline GpuFamily family_of(const DeviceInfo& info) {
  if (info.is_cpu) return GpuFamily::kCpu;
  const std::string name = detail::lower_case(info.name);
  int adreno = detail::number_after(name, "adreno");
  if (adreno == 0) adreno = detail::number_after(detail::lower_case(info.api_version), "adreno");
  if (adreno != 0) {
    if (adreno >= 800) return GpuFamily::kAdreno8xx;
    if (adreno >= 700) return GpuFamily::kAdreno7xx;
    if (adreno >= 600) return GpuFamily::kAdreno6xx;
    return name.find("x1") != std::string::npos ? GpuFamily::kAdreno7xx : GpuFamily::kOther;
  }
  if (const int mali = detail::number_after(name, "mali-g"); mali != 0) {
    for (int bifrost : {31, 51, 52, 71, 72, 76})
      if (mali == bifrost) return GpuFamily::kMaliBifrost;
    return GpuFamily::kMaliValhall;
  }
  return GpuFamily::kOther;
}

}  // namespace tessera
