// How the words of the kernel dialect that depend on the device are spelled: part of a device's tuning.
#pragma once
#include <string_view>

namespace tessera {

// How a packed 4×8-bit dot is spelled; chosen by a device row, never by a feature test alone.
enum class DotForm {
  kPlain,           // arithmetic on 32 bits; any width
  kSignedSigned,    // dot_4x8packed_ss, OpSDot; W = 4
  kSignedUnsigned,  // dot_4x8packed_su, OpSUDot; W = 4
  kPairs,           // sums of two products in 16 bits, as the vectors of CPUs have them; OpenCL, W = 8
};

constexpr std::string_view name_of(DotForm form) {
  constexpr std::string_view kNames[] = {"plain", "ss", "su", "pairs"};
  return kNames[static_cast<int>(form)];
}

struct WordChoice {
  int vector_width = 4;      // W: lanes of floatw, intw, uintw; OpenCL 4, 8, 16; GLSL 4
  bool half_calc = false;    // calc, calc4 are half
  bool subgroups = false;    // SUBGROUPS in static if: native subgroup reductions
  DotForm dot = DotForm::kPlain;
  bool operator==(const WordChoice&) const = default;
};

}  // namespace tessera
