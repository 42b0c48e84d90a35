"""The program's random numbers, in NumPy (kernels/philox.h)."""
import numpy as np

SHUFFLE, AUGMENT, DROPOUT = 1, 2, 0x10000  # RandomUse


def philox(seed, items, row, time, use):
    """Philox4x32-10 at counters {items[i], row, time, use} -> uint64 [4, n], each below 2^32."""
    low = np.uint64(0xFFFFFFFF)
    c0 = np.asarray(items, np.uint64)
    c1, c2, c3 = (np.full_like(c0, value) for value in (row, time, use))
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = ((p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0), p1 & low,
                          (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1), p0 & low)
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3])


# The test vectors of the generator's authors.
assert [hex(w) for w in philox(0, [0], 0, 0, 0)[:, 0]] == [
    "0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
assert [hex(w) for w in philox(0x299f31d0a4093822, [0x243f6a88], 0x85a308d3, 0x13198a2e,
                               0x03707344)[:, 0]] == [
    "0xd16cfe09", "0x94fdcceb", "0x5001e420", "0x24126ea1"]
