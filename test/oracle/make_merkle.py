#!/usr/bin/env python3
"""Values of test/unit/test_audit.c: leaves and roots of docs/protocol.md (Commitments), with hashlib alone.

    python3 test/oracle/make_merkle.py

Activation j of leaf i is (i * 31 + j * 7) % 257 - 128, an eighth of it for odd i, as f32.
"""
import hashlib
import struct


def activation(i, j):
    v = float((i * 31 + j * 7) % 257 - 128)
    return v / 8 if i % 2 else v


def leaf(i, n):
    x = struct.pack("<%df" % n, *(activation(i, j) for j in range(n)))
    return hashlib.sha256(b"\x00" + struct.pack("<I", i) + x).digest()


def root(leaves):
    while len(leaves) > 1:
        up = [hashlib.sha256(b"\x01" + a + b).digest() for a, b in zip(leaves[::2], leaves[1::2])]
        leaves = up + leaves[len(leaves) & ~1 :]
    return leaves[0]


for i, n in ((0, 0), (0, 12), (1, 12), (258, 1000)):
    print("leaf %d of %d numbers: %s" % (i, n, leaf(i, n).hex()))
for n in (1, 2, 3, 4, 5, 6, 7, 11, 33):
    print("root of %d leaves of 12 numbers: %s" % (n, root([leaf(i, 12) for i in range(n)]).hex()))
