// How the words of the kernel dialect that depend on the device are spelled: part of a device's tuning.
#pragma once

namespace tessera {

// How a packed 4×8-bit dot is spelled; chosen by a device row, never by a feature test alone.
enum class DotForm { kPlain, kSignedSigned, kSignedUnsigned };

struct WordChoice {
  int vector_width = 4;      // W: lanes of floatw; OpenCL 4, 8, 16; GLSL 4
  bool half_calc = false;    // calc, calc4 are half
  bool subgroups = false;    // SUBGROUPS in static if: native subgroup reductions
  DotForm dot = DotForm::kPlain;
  bool operator==(const WordChoice&) const = default;
};

}  // namespace tessera
