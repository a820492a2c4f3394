#!/usr/bin/env python3
"""Raw blocks of every weight type and their float32 values as PyPI's `gguf` gives them: TYPE.bin, TYPE.npy (needs numpy and gguf).

Blocks of random bits with sane scales, then the same with extreme ones: zero, the greatest and the smallest half, negative, infinite; all bits zero, all
bits one but for the scales. tests/unit/quant_test.cpp compares bit for bit.
"""
from pathlib import Path

import gguf
import numpy as np

HERE = Path(__file__).resolve().parent
# Offsets of the halves that a block begins or ends with (GGUF specification); integers between them.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0]}
EXTREMES = [0.0, -0.0, 65504.0, -65504.0, 2.0**-24, -(2.0**-24), np.inf]


def put_half(block, offset, value):
    block[offset : offset + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)


def quantized_blocks(kind, random):
    halves, size = HALVES[kind.name], gguf.GGML_QUANT_SIZES[kind][1]
    blocks = []
    for n in range(8):
        block = random.integers(0, 256, size, np.uint8)
        for offset in halves:
            put_half(block, offset, random.normal() * 0.1)
        blocks.append(block)
    for fill in (0, 255):
        block = np.full(size, fill, np.uint8)
        for offset in halves:
            put_half(block, offset, -0.37)
        blocks.append(block)
    for n, extreme in enumerate(EXTREMES):
        block = random.integers(0, 256, size, np.uint8)
        for i, offset in enumerate(halves):  # scale and minimum take turns
            put_half(block, offset, extreme if i == n % 2 or len(halves) == 1 else 0.25)
        blocks.append(block)
    return np.stack(blocks)


def plain_blocks(kind, random):
    """Every exponent and both signs: zeros, subnormals, infinities and NaN among them."""
    bits = random.integers(0, 1 << 16, 512, np.uint16)
    bits[:8] = [0x0000, 0x8000, 0x0001, 0x8001, 0x7F80 if kind.name == "BF16" else 0x7C00, 0x7FFF, 0x3F80, 0x7BFF]
    return bits.view(np.uint8).reshape(1, -1)


def main():
    for name in ["F16", "BF16", *HALVES]:
        kind = gguf.GGMLQuantizationType[name]
        random = np.random.default_rng(int(kind))
        raw = (quantized_blocks if name in HALVES else plain_blocks)(kind, random)
        with np.errstate(all="ignore"):
            values = gguf.quants.dequantize(raw, kind).astype("<f4").reshape(-1)
        (HERE / f"{name}.bin").write_bytes(raw.tobytes())
        np.save(HERE / f"{name}.npy", values)


main()
