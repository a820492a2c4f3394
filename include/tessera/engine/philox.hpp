// Philox4x32-10, a counter-based random generator: draw n is a function of (seed, n), so there is no state to save, restore or undo.
// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11.
#pragma once
#include <array>
#include <cstdint>

namespace tessera {

// 128 random bits for each (counter, key). Ten rounds of two 32×32→64 multiplications: cheap enough to call per draw.
constexpr std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9u;  // the Weyl sequence of the paper: golden ratio, √3 − 1
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

// Uniform in [0, 1), a multiple of 2⁻⁵³. The token at position n of a conversation uses draw n: same seed, same text, also after undo.
// `attempt` tells apart several answers at the same place. Counter word 3 is 0 here: other uses of the same seed take other values there
// and are independent.
constexpr double philox_uniform(uint64_t seed, uint64_t position, uint32_t attempt = 0) {
  const auto low = [](uint64_t v) { return static_cast<uint32_t>(v); };
  const auto high = [](uint64_t v) { return static_cast<uint32_t>(v >> 32); };
  const std::array<uint32_t, 4> bits = philox4x32({low(position), high(position), attempt, 0}, {low(seed), high(seed)});
  return static_cast<double>((uint64_t{bits[1]} << 32 | bits[0]) >> 11) * 0x1p-53;
}

}  // namespace tessera
