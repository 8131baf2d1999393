#!/usr/bin/env python3
"""Makes test/golden/dtype_blocks.h: block types as the gguf package (0.19.0) reads and writes them.

    python3 test/oracle/make_dtype.py > test/golden/dtype_blocks.h

decode: random blocks (any bytes, but finite scales) and the bits of their f32 values. encode: f32 values, some of them
halfway between two quants, and the blocks that the reference quantiser makes of them.
"""
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants

DECODE = {"q8_0": (T.Q8_0, [0]), "q4_0": (T.Q4_0, [0]), "q4_K": (T.Q4_K, [0, 2]), "q6_K": (T.Q6_K, [208])}
ELEMENTS = 512


def array(kind, name, values, form):
    print(f"static const {kind} {name}[{len(values)}] = {{")
    for i in range(0, len(values), 16):
        print("    " + ", ".join(form.format(int(v)) for v in values[i : i + 16]) + ",")
    print("};")


def blocks(qtype, scale_at, rng):
    size = quants.quant_shape_to_byte_shape((1, ELEMENTS), qtype)[-1]
    raw = rng.integers(0, 256, size, dtype=np.uint8)
    block = size // (ELEMENTS // quants.GGML_QUANT_SIZES[qtype][0])
    for start in range(0, size, block):
        for at in scale_at:
            scale = np.float16(rng.normal() * 0.01)
            raw[start + at : start + at + 2] = np.frombuffer(scale.tobytes(), np.uint8)
    return raw


def main():
    rng = np.random.default_rng(20)
    print("/* Made by test/oracle/make_dtype.py; do not edit. */")
    print("/* clang-format off */")
    for name, (qtype, scale_at) in DECODE.items():
        raw = blocks(qtype, scale_at, rng)
        values = quants.dequantize(raw.reshape(1, -1), qtype).astype(np.float32).reshape(-1)
        array("uint8_t", f"{name}_blocks", raw, "{}")
        array("uint32_t", f"{name}_bits", values.view(np.uint32), "0x{:08x}")
    x = (rng.normal(size=ELEMENTS) * 0.05).astype(np.float32)
    x[0:32] = 0
    x[32:64] = np.linspace(-127, 127, 32, dtype=np.float32) / 2  # d = 0.5: halves fall between the quants
    x[64:96] = -np.abs(x[64:96])
    x[96] = 40.0
    array("uint32_t", "encode_bits", x.view(np.uint32), "0x{:08x}")
    for name, qtype in (("q8_0", T.Q8_0), ("q4_0", T.Q4_0)):
        array("uint8_t", f"{name}_encoded", quants.quantize(x.reshape(1, -1), qtype).reshape(-1), "{}")


main()
