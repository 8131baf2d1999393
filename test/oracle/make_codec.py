#!/usr/bin/env python3
"""Makes test/golden/codec_rows.h: rows of numbers, and what docs/protocol.md (Codecs) makes of them, by numpy.

    python3 test/oracle/make_codec.py > test/golden/codec_rows.h

f16 is numpy's own conversion, bf16 is integer rounding, q8 looks its scales up in the sorted list of all halves and divides in
float32. numpy 2; nothing of net/codec.c is used.
"""
import numpy as np

HIDDEN = 150  # two whole groups and a short one
HALVES = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)  # all finite ones, ascending
Q8_MAX = 127 * 65504.0


def rows():
    rng = np.random.default_rng(3)
    normal = rng.normal(size=HIDDEN)
    yield normal
    yield normal * 1e-6  # subnormal scales
    yield normal * 1e-9  # the smallest scale or none
    yield normal * 3e5  # f16 saturates
    yield normal * 1e8  # q8 saturates
    yield np.exp(rng.uniform(-100, 88, HIDDEN)) * rng.choice([-1, 1], HIDDEN)  # every magnitude
    yield np.round(normal * 40) / 8  # many ties
    halves = rng.integers(0, 0x7BFF, HIDDEN)  # halfway between two halves
    yield (HALVES[halves] + HALVES[halves + 1]) / 2 * rng.choice([-1, 1], HIDDEN)
    bits = rng.integers(0, 1 << 32, HIDDEN, dtype=np.uint32)  # any bits, NaNs among them
    bits[::5] |= 0x7F800000
    yield bits.view(np.float32)
    edges = np.zeros(HIDDEN)
    edges[:9] = [np.inf, -np.inf, np.nan, -0.0, 65504, 65519.99, 65520, 1e-45, -1e-45]
    edges[64:68] = [127 * 2.0**-24, -(2.0**-25), 2.0**-24, 0.5 * 2.0**-24]
    edges[128:132] = [127, 63.5, -0.5, 1.5]  # scale 1: ties at every number
    yield edges


def tamed(x, largest):
    x = np.where(np.isnan(x), np.float32(0), x)
    return np.clip(x, np.float32(-largest), np.float32(largest))


def f16(x):
    return tamed(x, 65504).astype("<f2").tobytes()


def bf16(x):
    u = tamed(x, np.uint32(0x7F7F0000).view(np.float32)).view(np.uint32).astype(np.uint64)
    low, kept = u & 0xFFFF, u >> 16
    up = (low > 0x8000) | ((low == 0x8000) & (kept & 1 == 1))
    return (kept + up).astype("<u2").tobytes()


def q8(x):
    x = tamed(x, Q8_MAX)
    scales, numbers = [], []
    for at in range(0, len(x), 64):
        group = x[at : at + 64]
        # Products of halves and 127 are exact in f64, so this is the definition itself.
        s = HALVES[np.searchsorted(127 * HALVES, np.float64(np.abs(group).max()))]
        scales.append(s)
        numbers.append(np.rint(group / np.float32(s)) if s else np.zeros_like(group))
    q = np.concatenate(numbers)
    assert np.abs(q).max() <= 127
    return np.array(scales).astype("<f2").tobytes() + q.astype(np.int8).tobytes()


def array(kind, name, dims, values, form, per_line):
    print(f"static const {kind} {name}{dims} = {{")
    for row in values:
        print("    {")
        for i in range(0, len(row), per_line):
            print("        " + ", ".join(form.format(int(v)) for v in row[i : i + per_line]) + ",")
        print("    },")
    print("};")


def main():
    x = [np.asarray(r).astype(np.float32) for r in rows()]
    print("/* Made by test/oracle/make_codec.py; do not edit. */")
    print("/* clang-format off */")
    print(f"enum {{ CODEC_ROWS = {len(x)}, CODEC_HIDDEN = {HIDDEN} }};")
    array("uint32_t", "codec_bits", "[CODEC_ROWS][CODEC_HIDDEN]", [r.view(np.uint32) for r in x], "0x{:08x}", 10)
    for codec in f16, bf16, q8:
        made = [codec(r) for r in x]
        array("uint8_t", f"codec_{codec.__name__}", f"[CODEC_ROWS][{len(made[0])}]", made, "{}", 24)


with np.errstate(all="ignore"):
    main()
