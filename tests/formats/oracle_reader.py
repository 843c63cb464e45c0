"""A slow reader of `.sct` files in plain Python, written from docs/format.md only: the oracle of the format tests.

`read(bytes)` gives a dict: nodes, tensors, inputs, outputs, opsets; or, for an exact file, the ONNX bytes. Of a file
with levels it reads all and gives the loosest, or the one asked for.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np

M64 = 2**64 - 1
WIDTH = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16}
EXPONENT = {1: 8, 10: 5, 11: 11, 16: 8}
UNSIGNED = {2, 4, 9, 12, 13}


def clamp(x, lo, hi):
    return lo if x < lo else hi if x > hi else x


# ---- 2. coder ------------------------------------------------------------------------------------------------------


class Coder:
    def __init__(self, data):
        self.data, self.at, self.shifted = data, 7, 0
        self.low, self.range = 0, 1 << 56
        self.code = int.from_bytes((data[:7] + bytes(7))[:7], "big")

    def bit(self, p):
        ones = (self.range >> 16) * p
        if self.code < ones:
            self.range, bit = ones, 1
        else:
            self.code -= ones
            self.low = (self.low + ones) % (1 << 56)
            self.range, bit = self.range - ones, 0
        self._renew()
        return bit

    def bits(self, n):
        self.range >>= n
        v = min(self.code // self.range, (1 << n) - 1)
        self.code -= v * self.range
        assert self.code < self.range, "damaged"
        self.low = (self.low + v * self.range) % (1 << 56)
        self._renew()
        return v

    def _renew(self):
        while self.range < 1 << 48:
            byte = self.data[self.at] if self.at < len(self.data) else 0
            self.at += 1
            self.code = self.code * 256 + byte
            self.low = self.low * 256 % (1 << 56)
            self.range *= 256
            self.shifted += 1

    def length(self):
        for n in range(8):
            u = 1 << (56 - 8 * n)
            if -(-self.low // u) * u + u <= self.low + self.range:
                return self.shifted + n
        raise AssertionError

    def raw(self, n):
        x = 0
        while n > 0:
            take = min(n, 16)
            n -= take
            x = x << take | self.bits(take)
        return x


# ---- 3. models -----------------------------------------------------------------------------------------------------


class Counter:
    __slots__ = ("n", "p")

    def __init__(self, n=0):
        self.p, self.n = 1 << 21, n

    def probability(self):
        return clamp(self.p >> 6, 1, 65535)

    def learn(self, bit):
        self.p += (((bit << 22) - self.p) * (131072 // (2 * self.n + 3))) >> 16
        self.n = min(self.n + 1, 255)

    def code(self, c):
        bit = c.bit(self.probability())
        self.learn(bit)
        return bit


def _tables():
    powers = [4278222805, 4261543595, 4228380000, 4162825044, 4034748382, 3790295335, 3344923893, 2605029347,
              1580030169, 581260615, 78665070, 1440801]  # fmt: skip
    squash = {}
    for x in range(2848):
        e = 1 << 32
        for j in range(12):
            if x >> j & 1:
                e = (e * powers[j] + (1 << 31)) >> 32
        total = (1 << 32) + e
        squash[-x] = max(1, (e * 65536 + total // 2) // total)
        squash[x] = 65536 - squash[-x]
    stretch, x = [0] * 65536, -2847
    for p in range(65536):
        while x < 2847 and squash[x] < p:
            x += 1
        stretch[p] = x
    return squash, stretch


SQUASH, STRETCH = _tables()


def squash(x):
    return SQUASH[clamp(x, -2847, 2847)]


def ratio(a, b):
    return STRETCH[clamp((a << 16) // (a + b), 1, 65535)]


class Number:
    def __init__(self):
        self.more = [Counter() for _ in range(63)]
        self.lead = defaultdict(Counter)

    def code(self, c):
        e = 0
        while e < 62 and self.more[e].code(c):
            e += 1
        x, node, left = 1, 1, e
        while left > 0 and e - left < 3:
            bit = self.lead[e, node].code(c)
            node, x, left = 2 * node + bit, 2 * x + bit, left - 1
        return (x << left | c.raw(left)) - 1


def uniform(c, count):
    lo, hi = 0, count
    while hi - lo > 1:
        mid = (lo + hi) // 2
        if c.bit(((hi - mid) << 16) // (hi - lo)):
            lo = mid
        else:
            hi = mid
    return lo


def below(c, most):
    length = uniform(c, most.bit_length() + 1)
    return length if length <= 1 else 1 << (length - 1) | c.raw(length - 1)


def unzigzag(u):
    return u >> 1 if u % 2 == 0 else -(u >> 1) - 1


def zigzag(v):
    return 2 * v if v >= 0 else -2 * v - 1


# ---- 4. tensors ----------------------------------------------------------------------------------------------------


class Tensor:
    """One tensor stream; `earlier` lists the bytes of the tensors before it, None in a file of version 1."""

    def __init__(self, dtype, dims, data, earlier=()):
        self.earlier = earlier
        self.dims, self.n = dims, int(np.prod(dims, dtype=np.int64)) if dims else 1
        self.w, self.E = WIDTH[dtype], EXPONENT.get(dtype, 0)
        self.M = self.w - 1 - self.E
        self.dtype, self.signed = dtype, dtype not in UNSIGNED
        self.values = [0] * self.n
        self.used = 0
        if self.n:
            self.c = Coder(data)
            self.header()
            self.used = self.c.length()
            if self.codec == 0:
                size = self.n * self.w // 8
                array = np.frombuffer(data[self.used : self.used + size], f"<u{self.w // 8}")
                self.values, self.used = array, self.used + size
            if self.split:
                self.used += self.split_values(data[self.used :])

    def bytes(self):
        return np.array(self.values, dtype=np.uint64).astype(f"<u{self.w // 8}").tobytes()

    def header(self):
        c = self.c
        self.split = self.fast = self.on_grid = False
        if c.bit(49152):
            self.mixed, self.codec, self.layout = True, 1, c.bit(32768)
        else:
            self.layout, self.codec = c.bits(2), c.bits(3)
            self.mixed = self.layout == 1
        if self.codec == 0:
            return
        if self.codec == 7 and not c.bit(57344):
            assert self.layout == 0, "damaged"
            assert c.bits(6) == 0, "a layout of a later version"
            self.layout, self.codec = 4, c.bits(6)
        elif self.codec > 5:
            assert self.earlier is not None, "damaged"
            assert self.layout == 0, "damaged"
            (self.matched if self.codec == 6 else self.same)()
            return
        self.columns_first = self.split_rows = False
        self.period = self.side = 1
        if self.mixed:
            self.columns_first = c.bit(16384)
            if len(self.dims) <= 2 and c.bit(16384):
                if len(self.dims) == 2:
                    self.split_rows = c.bit(16384)
                self.side = 2 + c.bits(3)
                self.period = self.side**2
        self.nnz = self.n
        if self.layout in (1, 2):
            self.nnz = below(c, self.n)
        elif self.layout == 3:
            self.group, self.kept = 1 + c.bits(6), 1 + c.bits(6)
            self.nnz = self.n // self.group * self.kept
        elif self.layout == 4:
            self.blocks()
        if self.nnz == 0:
            return
        self.S = Number()
        self.codec_header()
        if self.mixed:
            self.mixed_body()
        else:
            [self.dense, None, self.gaps, self.nm, self.insides][self.layout]()

    def before(self, back):
        return np.frombuffer(self.earlier[len(self.earlier) - back], f"<u{self.w // 8}").tolist() if back else []

    def same(self):
        self.values = self.before(1 + Number().code(self.c))
        assert len(self.values) == self.n, "damaged"

    def matched(self):
        S = Number()
        known, stride, shift = self.before(S.code(self.c)), S.code(self.c), self.c.bits(6)
        smooth = self.c.bit(16384)
        if len(known) == self.n and stride and self.n % stride == 0 and self.c.bit(16384):
            known = [x for r in range(self.n // stride) for x in known[r :: self.n // stride]]
        self.values = Matched(self, known, stride, shift, smooth).x[len(known) :]

    def trailing(self):
        return self.c.bits(6)

    def read_scale(self):
        z = self.trailing()
        self.scale = np.uint32(self.c.raw(31 - z) << z).view(np.float32)

    def on_scale(self, q):
        return int((np.float32(q) * self.scale).view(np.uint32))

    def codec_header(self):
        c = self.c
        if self.codec == 1:
            self.codebook()
            if not self.mixed and self.layout != 3:
                self.fast = c.bit(32768)
        elif self.codec == 2:
            self.read_scale()
        elif self.codec == 3:
            self.shift = self.trailing()
            self.sign, self.exponent, self.lead = Counter(), defaultdict(Counter), defaultdict(Counter)
        elif self.codec == 5:
            self.shift = self.trailing()
        if self.codec in (2, 4):
            self.zero, self.sign, self.magnitude = Counter(), Counter(), Number()
        if self.codec == 5 or self.fast:
            self.split = True
            model = Number()
            self.f = [model.code(c) for _ in range(len(self.entries) if self.fast else 2 << self.E)]
            assert sum(self.f) == 1 << 14
            self.rans_length = Number().code(c)

    def codebook(self):
        c = self.c
        size = 1 + self.S.code(c)
        if self.dtype == 1:
            self.on_grid = c.bit(32768)
        if self.on_grid:
            self.read_scale()
        else:
            self.shift = self.trailing()
        self.negatives = uniform(c, size + 1) if self.signed else 0
        minus = self.magnitudes(self.negatives)
        plus = self.magnitudes(size - self.negatives)
        self.entries = [self.entry(v, True) for v in minus] + [self.entry(v, False) for v in reversed(plus)]
        self.tree = defaultdict(lambda: Counter(6))

    def magnitudes(self, count):
        if count == 0:
            return []
        c = self.c
        width = 17 if self.on_grid else self.w - self.shift - self.signed
        if self.on_grid or not self.E:
            v = below(c, 1 << (width - 1) if width else 0)
        else:
            m = max(self.M - self.shift, 0)
            x = width - m
            middle = (2 ** (self.E - 1) - 2) >> (self.E - x)
            v = (middle - unzigzag(self.S.code(c))) << m | c.raw(m)
        out = [v]
        rice = uniform(c, width) if count > 1 else 0
        for _ in range(count - 1):
            high = 0
            while high < 24 and c.bit(32768):
                high += 1
            v -= (c.raw(width) if high == 24 else high << rice | c.raw(rice)) + 1
            assert v >= 0, "damaged"
            out.append(v)
        return out

    def entry(self, v, negative):
        if self.on_grid:
            return self.on_scale(-v if negative else v)
        x = v << self.shift
        if not negative:
            return x
        mask = (1 << self.w) - 1
        return x | 1 << (self.w - 1) if self.E else ~(x | ((1 << self.shift) - 1)) & mask

    def pick(self, bit):
        lo, hi = 0, len(self.entries)
        while hi - lo > 1:
            mid = self.negatives if (lo, hi) == (0, len(self.entries)) and 0 < self.negatives < hi else (lo + hi) // 2
            if bit(mid):
                lo = mid
            else:
                hi = mid
        return lo

    def integer(self):
        if self.layout in (0, 4) and self.zero.code(self.c):
            return 0
        negative = self.sign.code(self.c)
        s = self.magnitude.code(self.c)
        return -s - 1 if negative else s + 1

    def fields(self):
        c, x, node = self.c, self.sign.code(self.c), 1
        for i in range(self.w - 2, self.M - 1, -1):
            bit = 0 if i < self.shift else self.exponent[node].code(c)
            node, x = 2 * node + bit, 2 * x + bit
        at, left, exponent = 1, self.M, node
        while left > self.shift and at < 8:
            bit = self.lead[exponent, at].code(c)
            at, x, left = 2 * at + bit, 2 * x + bit, left - 1
        direct = max(left - self.shift, 0)
        return (x << direct | c.raw(direct)) << min(self.shift, left)

    def value(self):
        if self.split:
            return 1
        if self.codec == 1:
            return self.entries[self.pick(lambda mid: self.tree[mid].code(self.c))]
        if self.codec == 2:
            return self.on_scale(self.integer())
        if self.codec == 3:
            return self.fields()
        return self.integer() % (1 << self.w)

    def dense(self):
        for i in range(self.n):
            self.values[i] = self.value()

    def gaps(self):
        G, at = Number(), 0
        for k in range(self.nnz):
            if self.n - at != self.nnz - k:
                at += G.code(self.c)
            self.values[at] = self.value()
            at += 1

    def blocks(self):
        c, (rows, channels), size = self.c, self.dims[:2], int(np.prod(self.dims[2:], dtype=np.int64))
        R, C = 1 + c.bits(6), 1 + c.bits(6)
        last = len(self.dims) > 2 and c.bit(32768)
        places = [j % channels * size + j // channels if last else j for j in range(channels * size)]
        todo = -(-rows // R) * -(-len(places) // C)
        left, inside = below(c, todo), []
        for r in range(0, rows, R):
            for k in range(0, len(places), C):
                if left and (left == todo or c.bit(clamp((left << 16) // todo, 1, 65535))):
                    left -= 1
                    inside += [i * len(places) + j for i in range(r, min(r + R, rows)) for j in places[k : k + C]]
                todo -= 1
        self.inside, self.nnz = sorted(inside), len(inside)

    def insides(self):
        for i in self.inside:
            self.values[i] = self.value()

    def nm(self):
        counters = defaultdict(Counter)
        rows, cols, size, rs, cs, s, _ = self.view()
        for r in range(rows):
            for q in range(size):
                for k in range(cols):
                    place = k % self.group
                    if place == 0:
                        seen = 0
                    if seen == self.kept:
                        continue
                    if self.group - place == self.kept - seen or counters[place, seen].code(self.c):
                        seen += 1
                        self.values[r * rs + k * cs + q * s] = self.value()

    def view(self):
        d, p = self.dims, self.period
        if len(d) >= 3:
            size = int(np.prod(d[2:], dtype=np.int64))
            return d[0], d[1], size, d[1] * size, size, 1, d[-1]
        if len(d) == 2 and not self.split_rows:
            return d[0], d[1] // p, p, d[1], p, 1, self.side
        if len(d) == 2:
            return d[1], d[0] // p, p, 1, p * d[1], d[1], self.side
        return 1, self.n // p, p, self.n, p, 1, self.side

    def mixed_body(self):
        c = self.c
        rows, cols, size, rs, cs, s, width = self.view()
        left, todo = self.nnz, self.n
        symbol = [0] * self.n
        rates = defaultdict(lambda: [0, 0])
        pseudo = [131072, 98304, 98304, 655360, 65536, 655360, 196608, 65536]
        weight = [21845] * 8
        last = {}
        previous = 0
        if self.codec == 1:
            own_rows = min(rows, 65536 // len(self.entries))
            odds = defaultdict(lambda: [0, 0, 0, 0])
            node_weights = defaultdict(lambda: [3277] * 5)

        def kind(sym):
            if sym == 0:
                return 0
            e, neg = sym - 1, self.negatives
            if e < neg:
                return 1 if e < neg // 2 else 2
            return 3 if e < neg + (len(self.entries) - neg) // 2 else 4

        def mix(base, votes, weights, rate):
            X = clamp(base + (sum(w * v for w, v in zip(weights, votes, strict=True)) >> 16), -2847, 2847)
            bit = c.bit(squash(X))
            error = (bit << 16) - squash(X)
            expected = [squash(X - (w * v >> 16)) for w, v in zip(weights, votes, strict=True)]
            for j, v in enumerate(votes):
                weights[j] = clamp(weights[j] + (v * error * rate >> 14), -(2**18), 2**18)
            return bit, expected

        for a in range(cols if self.columns_first else rows):
            for b in range(rows if self.columns_first else cols):
                r, k = (b, a) if self.columns_first else (a, b)
                rates["kernel"] = [0, 0]
                for q in range(size):
                    i = r * rs + k * cs + q * s
                    x, y = q % width, q // width
                    above = symbol[i - rs] if r > 0 else 0
                    above2 = symbol[i - 2 * rs] if r > 1 else 0
                    if size > 1:
                        west = symbol[i - s] if x > 0 else 0
                        north = symbol[i - width * s] if y > 0 else 0
                        northwest = symbol[i - (width + 1) * s] if x > 0 and y > 0 else 0
                        northeast = symbol[i - (width - 1) * s] if y > 0 and x + 1 < width else 0
                    else:
                        west = symbol[i - cs] if k > 0 else 0
                        northwest = symbol[i - 2 * cs] if k > 1 else 0
                        north, northeast = above, 0
                    here = 1
                    if self.layout == 1:
                        if left == 0:
                            here = 0
                        elif left < todo:
                            around = (
                                (west != 0)
                                + 2 * (northwest != 0)
                                + 4 * (size > 1 and north != 0)
                                + 8 * (northeast != 0)
                            )
                            names = [("row", r), ("place", k, q), ("col", k), ("position", q), ("around", around),
                                     ("before", (above != 0) + 2 * (above2 != 0)), "kernel", "recent"]  # fmt: skip
                            use = [rates[name] for name in names]
                            votes = [ratio(u[0] + p, u[1] + p) for u, p in zip(use, pseudo, strict=True)]
                            base = STRETCH[clamp((left << 16) // todo, 1, 65535)]
                            here, expected = mix(base, votes, weight, 5)
                            for u, e in zip(use, expected, strict=True):
                                u[0] += here << 16
                                u[1] += e
                    todo -= 1
                    if not here:
                        continue
                    left -= 1
                    now = 1
                    if self.codec == 1:
                        context = [kind(previous), kind(west), kind(north), kind(last.get((k, q), 0)), r % own_rows]

                        def decide(mid, context=context):
                            use = [odds[j, x, mid] for j, x in enumerate(context)]
                            votes = [ratio(u[0] + 65536, u[1] + 65536) - ratio(u[2] + 65536, u[3] + 65536) for u in use]
                            bit, expected = mix(STRETCH[self.tree[mid].probability()], votes, node_weights[mid], 4)
                            self.tree[mid].learn(bit)
                            for u, e in zip(use, expected, strict=True):
                                u[0] += bit << 16
                                u[1] += e
                                u[2] += (1 - bit) << 16
                                u[3] += 65536 - e
                            return bit

                        e = self.pick(decide)
                        self.values[i] = self.entries[e]
                        now = e + 1
                    else:
                        self.values[i] = self.value()
                    symbol[i] = last[k, q] = previous = now
            rates["recent"][0] -= rates["recent"][0] >> 3
            rates["recent"][1] -= rates["recent"][1] >> 3

    def split_values(self, data):
        bits = 0 if self.fast else self.M - self.shift
        packed = (self.nnz * bits + 7) // 8
        states = list(struct.unpack_from("<4I", data))
        at = 16
        slots, starts, total = [], [], 0
        for sym, f in enumerate(self.f):
            slots += [sym] * f
            starts.append(total)
            total += f
        mantissas = int.from_bytes(data[self.rans_length : self.rans_length + packed], "little")
        value = 0
        for i in range(self.n):
            if self.layout in (2, 4) and self.values[i] == 0:
                continue
            x = states[value % 4]
            slot = x % (1 << 14)
            sym = slots[slot]
            x = self.f[sym] * (x >> 14) + slot - starts[sym]
            if x < 1 << 16:
                x = x << 16 | int.from_bytes(data[at : at + 2], "little")
                at += 2
            states[value % 4] = x
            if self.fast:
                self.values[i] = self.entries[sym]
            else:
                self.values[i] = sym << self.M | (mantissas >> (value * bits) & ((1 << bits) - 1)) << self.shift
            value += 1
        assert states == [1 << 16] * 4, "damaged"
        assert at == self.rans_length, "damaged"
        return self.rans_length + packed


# ---- 4.6 matched elements --------------------------------------------------------------------------------------------


class Hashed(dict):
    """Counters by the top bits of a name."""

    def __init__(self, bits):
        self.shift = 64 - bits

    def __getitem__(self, name):
        at = name >> self.shift
        if at not in self:
            self[at] = Counter()
        return self.get(at)


class Matched:
    def __init__(self, t, known, stride, shift, smooth):
        self.c, self.t, self.x, self.stride, self.shift, self.smooth = t.c, t, list(known), stride, shift, smooth
        self.errors, self.last_length, self.last_sign = defaultdict(lambda: [0] * 6), 0, 0
        self.top = 1 << (t.w - 1) if t.E else 0
        self.key = {8: 4, 16: 3}.get(t.w, 2)
        total = len(known) + t.n
        self.models = Models(Hashed(clamp(total.bit_length() + 5, 12, 22)))
        self.fold = 64 - clamp(total.bit_length(), 4, 22)
        self.seen = [{}, {}]
        self.pointers = defaultdict(lambda: [None, 0, 0])  # at, length, flips
        self.trust = defaultdict(Counter)
        self.runs = [0] * 8
        self.won, self.recent = [8] * len(known), 0
        for i in range(total):
            self.i = i
            self.predict()
            if i >= len(known):
                self.x.append(self.element())
            self.learn(i >= len(known))

    def m(self, i):
        return self.x[i] & ~self.top

    def negative(self, i):
        return int(bool(self.x[i] & self.top)) if i >= 0 else 2

    def back(self, b):
        return self.i - b if 0 < b <= self.i else None

    def predict(self):
        i, s = self.i, self.stride
        column = i % s if s else 0
        self.own = [self.pointers[0], self.pointers[1], self.pointers[2, column], self.pointers[3, column]]
        self.places = [p[0] for p in self.own]
        self.places += [self.back(s), self.back(s + 1) if s else None, self.back(1), self.back(s - 1)]
        self.says = [None if p is None else self.m(p) for p in self.places]
        if not self.top:
            mask = (1 << self.t.w) - 1
            if i >= 2:
                self.says[6] = (2 * self.m(i - 1) - self.m(i - 2)) & mask
            if self.places[5] is not None and s > 1:
                self.places[7] = i - 1
                self.says[7] = (self.m(i - 1) + self.m(i - s) - self.m(i - s - 1)) & mask
        self.length = [p[1] for p in self.own] + self.runs[4:]

    def winner_of(self, b):
        return self.won[self.i - b] if 0 < b <= self.i else 8

    def element(self):
        length, tried, value, winner = self.length, set(), None, 8
        shapes = 0
        for j in range(4):
            n = length[j]
            shapes = shapes << 2 | (0 if self.places[j] is None else 1 if n == 0 else 2 if n < 8 else 3)
        for k in range(3):
            best, most = None, 2048
            for j in range(8):
                if self.says[j] is not None and self.says[j] not in tried:
                    p = self.trust[j, length[j]].probability()
                    if p > most:
                        best, most = j, p
            if best is None:
                break
            guess = self.says[best]
            agree = sum(1 << j for j in range(8) if self.says[j] == guess)
            names = [h(1, k, best, length[best]), h(2, k, agree), h(3, k, agree, length[best], self.winner_of(1)),
                     h(4, k, self.recent, agree),
                     h(5, k, best, self.winner_of(self.stride), self.winner_of(self.stride - 1)),
                     h(6, k, best, shapes)]  # fmt: skip
            if self.models.decide(self.c, names, k):
                value, winner = guess, best
                break
            tried.add(guess)
        signed = None
        if winner == 8 and self.smooth:
            signed = self.curve()
        elif winner == 8:
            value = self.real() if self.top else self.whole()
        self.won.append(winner)
        self.recent = (self.recent << 4 | winner) & 0xFFFF
        if signed is not None:
            return signed
        return value | self.top * self.sign(value, winner) if self.top else value

    def go_on(self, j):
        step, points = (self.stride if j % 2 else 1), j // 2 + 1
        if step == 0 or self.i < points * step:
            return 0
        at = [self.x[self.i - k * step] for k in range(1, points + 1)]
        if points == 1:
            return at[0]
        if self.t.w == 32 and self.top:

            def plain(x):
                return x & 0x7FFFFFFF == 0 or 32 <= x >> 23 & 255 < 255

            if not all(plain(x) for x in at):
                return at[0]
            f = np.array(at, np.uint32).view(np.float32)
            with np.errstate(over="ignore"):
                step = f[0] - f[1]
                told = f[0] + (step if points == 2 else step + (step - (f[1] - f[2])))
            told = int(np.float32(told).view(np.uint32))
            return told if plain(told) else at[0]
        return (2 * at[0] - at[1] if points == 2 else 3 * at[0] - 3 * at[1] + at[2]) % (1 << self.t.w)

    def ordered(self, x):
        top = 1 << (self.t.w - 1)
        if not self.t.signed:
            return x
        if not self.t.E:
            return x ^ top
        return ~x % (2 * top) if x & top else x | top

    def curve(self):
        errors = self.errors[self.i % self.stride if self.stride else 0]
        guess = [self.ordered(self.go_on(j)) for j in range(6)]
        best = min(range(6), key=lambda j: (errors[j], j))
        e = 0
        while e < self.t.w:
            names = [h(80, e, errors[best] // 4), h(81, e, best, errors[best]), h(82, e, self.last_length), h(83, e)]
            if not self.models.decide(self.c, names, 3):
                break
            e += 1
        value = guess[best]
        if e:
            self.last_sign = self.models.decide(self.c, [h(84, e, best), h(85, self.last_sign, best)], 3)
            distance = 1 << (e - 1) | self.c.raw(e - 1)
            value = (value - distance if self.last_sign else value + distance) % (1 << self.t.w)
        self.last_length = e
        for j in range(6):
            errors[j] = (3 * errors[j] + 4 * abs(value - guess[j]).bit_length()) // 4
        top = 1 << (self.t.w - 1)
        if not self.t.signed:
            return value
        if not self.t.E:
            return value ^ top
        return value ^ top if value & top else ~value % (2 * top)

    def sign(self, value, winner):
        zero, names = int(value == 0), []
        for j in range(6):
            if self.says[j] != value:
                names.append(h(20 + j, 9, zero, winner))
            else:
                flips = self.own[j][2] if j < 4 else 0
                names.append(h(20 + j, self.negative(self.places[j]), flips, zero, int(winner == j)))
        i, s = self.i, self.stride
        names.append(h(26, self.negative(i - 1), self.negative(i - 2), zero))
        names.append(h(27, self.negative(i - s) if s else 2, self.negative(i - 2 * s) if s else 2, zero))
        return self.models.decide(self.c, names, 3)

    def real(self):
        M = self.t.M
        stop = max(M - 3, self.shift)
        west = self.m(self.i - 1) >> M if self.i else 0
        north = self.m(self.i - self.stride) >> M if self.back(self.stride) is not None else 0
        node = 1
        for _ in range(self.t.w - 1 - stop):
            names = [h(40, node), h(41, node, west), h(42, node, north), h(43, node, west, north)]
            node = 2 * node + self.models.decide(self.c, names, 3)
        top = node - (1 << (self.t.w - 1 - stop))
        return (top << (stop - self.shift) | self.c.raw(stop - self.shift)) << self.shift

    def whole(self):
        prefix, s = 0, self.stride
        for b in range(self.t.w - 8, -1, -8):

            def part(back, b=b, prefix=prefix):
                at = self.back(back)
                if at is None:
                    return 1000
                v = self.m(at) >> b
                return v & 255 | (256 if v >> 8 == prefix else 0)

            w, ww, n, nw = part(1), part(2), part(s), part(s + 1)
            base = [h(60, b), h(61, b, prefix), h(62, b, w), h(63, b, n), h(64, b, w, n), h(65, b, w, ww),
                    h(66, b, n, nw, w), h(67, b, w, ww, part(3))]  # fmt: skip
            node = 1
            for _ in range(8):
                node = 2 * node + self.models.decide(self.c, [h(x, node) for x in base], 3)
            prefix = prefix << 8 | node & 255
        return prefix

    def learn(self, coded):
        value = self.m(self.i)
        for j in range(8):
            if self.says[j] is None:
                continue
            hit = self.says[j] == value
            if coded:
                self.trust[j, self.length[j]].learn(int(hit))
            if j >= 4:
                self.runs[j] = min(self.runs[j] + 1, 15) if hit else 0
        self.follow(self.own[0], self.own[1], self.seen[0], 1)
        if self.stride:
            self.follow(self.own[2], self.own[3], self.seen[1], self.stride)

    def follow(self, forward, mirror, seen, step):
        i, k = self.i, self.key
        for p, by in ((forward, step), (mirror, -step)):
            if p[0] is None:
                continue
            if self.m(p[0]) == self.m(i):
                p[1] = min(p[1] + 1, 15)
                p[2] = (p[2] << 1 | self.negative(p[0]) ^ self.negative(i)) & 7
            else:
                p[1:] = 0, p[2] << 1 & 7
            p[0] += by
            if p[0] < 0:
                p[:] = None, 0, 0
        reach = (k - 1) * step
        if i < reach:
            return
        last = [self.m(i - j * step) for j in range(k)]
        ahead, behind = h(1, *reversed(last)) >> self.fold, h(1, *last) >> self.fold

        def alike(at, by):
            return [self.m(at + j * by) for j in range(k)] == last

        def flips(now, before):
            a, b = self.negative(i) ^ self.negative(now), self.negative(i - step) ^ self.negative(before)
            return a | b << 1

        at = seen.get(ahead)
        if forward[1] == 0 and at is not None and alike(at, -step):
            forward[:] = at + step, 0, flips(at, at - step)
        at = seen.get(behind)
        if mirror[1] == 0 and at is not None and at >= reach + step and alike(at - reach, step):
            mirror[:] = at - reach - step, 0, flips(at - reach, at - reach + step)
        seen[ahead] = i


# ---- 5. graph ------------------------------------------------------------------------------------------------------

(IR, OPSET, DOMAIN, INPUT, OUTPUT, DTYPE, HASSHAPE, RANK, FREE, SIZE, SYMBOL, MORE, OP, NEWOP, INPUTS, REF, OUTPUTS,
 OUT, ATTR, NEWATTR, KIND, INT, FLOAT, TEXT, LIST, INIT, SAME, DIM, EXTRA, COUNT) = range(1, 31)  # fmt: skip


def h(a, *rest):
    for b in rest:
        x = ((a ^ b) * 0x9E3779B97F4A7C15) & M64
        a = x ^ x >> 29
    return a


class Models:
    def __init__(self, counters=None):
        self.counters = defaultdict(Counter) if counters is None else counters
        self.weights = defaultdict(lambda: 22000)
        self.ops, self.attrs = [], []

    def decide(self, c, names, group):
        use = [self.counters[h(n, j + 1) or 1] for j, n in enumerate(names)]
        votes = [STRETCH[u.probability()] if u.n else 0 for u in use]
        at = [(group, j, min(u.n, 7)) for j, u in enumerate(use)]
        p = squash(sum(self.weights[a] * v for a, v in zip(at, votes, strict=True)) >> 16)
        bit = c.bit(p)
        error = (bit << 16) - p
        for u, v, a in zip(use, votes, at, strict=True):
            self.weights[a] = clamp(self.weights[a] + (v * error * 6 >> 14), -(2**18), 2**18)
            u.learn(bit)
        return bit


class Graph:
    def __init__(self, c, models):
        self.c, self.m = c, models
        self.last_name = self.last_symbol = ""
        self.last_size = 0
        self.typed, self.last_rows = [], None
        self.read()

    def symbol(self, bits, names, group=0):
        node = 1
        for _ in range(bits):
            node = 2 * node + self.m.decide(self.c, [h(n, node) for n in names], group)
        return node - (1 << bits)

    def number(self, *names):
        e = 0
        while e < 62 and self.m.decide(self.c, [h(n, 1000 + e) for n in names], 1):
            e += 1
        x, left = 1, e
        while left > 0 and e - left < 10:
            x = 2 * x + self.m.decide(self.c, [h(n, 2000 + e, x) for n in names], 1)
            left -= 1
        return (x << left | self.c.raw(left)) - 1

    def text(self, kind, tag, like):
        out, last, whole, pointer, matched = bytearray(), [256] * 5, kind, 0, 1
        like = like.encode()
        while True:
            guess = like[pointer] if pointer < len(like) else 0
            names = [h(TEXT, kind), h(TEXT, 1, last[0]), h(TEXT, 2, *last[:2]), h(TEXT, 3, *last[:3]),
                     h(TEXT, 4, *last), h(TEXT, 5, tag, *last[:2]), h(TEXT, 6, guess, matched, tag),
                     h(TEXT, 7, whole)]  # fmt: skip
            byte = self.symbol(8, names, 2)
            if byte == 0:
                return out.decode()
            out.append(byte)
            if byte == guess:
                pointer += 1
            else:
                matched = 0
                if byte in b"._":
                    while pointer < len(like) and like[pointer] not in b"._":
                        pointer += 1
                    pointer = min(pointer + 1, len(like))
                elif guess:
                    pointer += 1
            last = [byte, *last[:4]]
            whole = h(whole, byte)

    def dtype(self, where):
        return self.symbol(5, [DTYPE, h(DTYPE, where)])

    def infos(self, tag):
        out, like = [], ""
        for _ in range(self.number(h(COUNT, tag))):
            like = self.text(tag, tag, like)
            dtype, shape = self.dtype(tag), None
            if self.symbol(1, [h(HASSHAPE, tag)]):
                rank, shape = self.number(h(RANK, tag)), []
                for a in range(rank):
                    if self.symbol(1, [h(FREE, tag, a), h(FREE, tag, a, rank)]):
                        self.last_symbol = self.text(SYMBOL, a, self.last_symbol)
                        shape.append(self.last_symbol)
                    else:
                        self.last_size = self.number(h(SIZE, tag, a), h(SIZE, tag, a, self.last_size))
                        shape.append(self.last_size)
            out.append((like, dtype, shape))
        return out

    def word(self, words, fresh, names):
        value, text = self.symbol(8, names, 3), None
        if value == 1:
            text = self.text(fresh, fresh, "")
            if len(words) < 254:
                words.append(text)
            value = words.index(text) + 2 if text in words else 1
        elif value:
            text = words[value - 2]
        return value, text

    def tensor_type(self, name, op, slot):
        where = h(INIT, op, slot)
        dtype = self.dtype(where)
        rank, dims = self.number(RANK, h(RANK, where)), []
        before = self.typed[-1]["dims"] if self.typed else []
        for a in range(rank):
            same = self.symbol(3, [h(SAME, a, rank), h(SAME, a, rank, where)])
            known = [None, *([*before, None, None][:2]), self.last_rows, dims[-1] if dims else None]
            dims.append(known[same] if same else self.number(h(DIM, a, rank), h(DIM, a, rank, where)))
        if rank >= 2:
            self.last_rows = dims[0]
        self.typed.append({"name": name, "dtype": dtype, "dims": dims})
        return self.typed[-1]

    def initializer(self, op, slot):
        self.last_name = self.text(INIT, h(op, slot), self.last_name)
        return self.tensor_type(self.last_name, op, slot)

    def read(self):
        self.ir = self.number(IR)
        self.opsets = {}
        for _ in range(self.number(OPSET)):
            domain = self.text(DOMAIN, 0, "")
            self.opsets[domain] = self.number(h(OPSET, int(domain == "")))
        self.inputs, self.outputs = self.infos(INPUT), self.infos(OUTPUT)
        self.nodes, self.constants = [], []
        activations = [i[0] for i in self.inputs]
        previous = before = 0
        while True:
            op, key = self.word(self.m.ops, NEWOP, [OP, h(OP, previous), h(OP, previous, before)])
            if op == 0:
                break
            node = {"op": key, "inputs": [], "outputs": [], "attrs": {}}
            for s in range(self.number(h(INPUTS, op))):
                ref = self.number(h(REF, s), h(REF, op, s), h(REF, op, s, previous))
                if ref == 1:
                    self.constants.append(self.initializer(op, s))
                    node["inputs"].append(self.constants[-1]["name"])
                elif ref == 0:
                    node["inputs"].append("")
                else:
                    back = (ref - 2) // 2
                    node["inputs"].append(self.constants[-1 - back]["name"] if ref % 2 else activations[-1 - back])
            for s in range(self.number(h(OUTPUTS, op))):
                out = self.number(h(OUT, s), h(OUT, op, s), h(OUT, op, previous))
                inner = f"\0{len(self.nodes)}" + (f"_{s}" if s else "")
                name = "" if out == 0 else inner if out == 1 else self.outputs[out - 2][0]
                if out:
                    activations.append(name)
                node["outputs"].append(name)
            self.attributes(node, op)
            self.nodes.append(node)
            before, previous = previous, op
        for _ in range(self.number(EXTRA)):
            self.constants.append(self.initializer(0, 0))
        self.rename()

    def attributes(self, node, op):
        previous = 0
        while True:
            i, name = self.word(self.m.attrs, NEWATTR, [h(ATTR, previous), h(ATTR, op, previous)])
            if i == 0:
                return
            at = h(op, i)
            kind = self.symbol(3, [h(KIND, i)])
            node["attrs"][name] = (kind, self.attribute(kind, i, at))
            previous = i

    def real(self, at):
        x = 0
        for i in range(4):
            x = x << 8 | self.symbol(8, [h(FLOAT, i, x), h(FLOAT, at, i, x)])
        return struct.unpack("<f", struct.pack("<I", x))[0]

    def attribute(self, kind, i, at):
        if kind == 0:
            return None
        if kind == 1:
            return self.real(at)
        if kind == 2:
            return unzigzag(self.number(h(INT, i), h(INT, at)))
        if kind == 3:
            return self.text(TEXT, at, "")
        if kind == 4:
            return self.tensor_type("", 0, 1)
        out = []
        for k in range(self.number(h(LIST, at))):
            if kind == 5:
                out.append(self.real(at))
            elif kind == 6:
                last = zigzag(out[-1]) if out else 0
                out.append(unzigzag(self.number(h(INT, i, last), h(INT, at, k), h(INT, at, k, last))))
            else:
                out.append(self.text(TEXT, at, out[-1] if out else ""))
        return out

    def rename(self):
        taken = {i[0] for i in self.inputs + self.outputs} | {t["name"] for t in self.constants}
        names = {}

        def new(name):
            if not name.startswith("\0"):
                return name
            if name not in names:
                to = "t" + name[1:]
                while to in taken:
                    to += "_"
                taken.add(to)
                names[name] = to
            return names[name]

        constants = {t["name"]: t for t in self.constants}
        used = set()
        for k, node in enumerate(self.nodes):
            node["inputs"] = [new(n) for n in node["inputs"]]
            node["outputs"] = [new(n) for n in node["outputs"]]
            own = [n for n in node["inputs"] if n in constants]
            name = (own[0].rpartition(".")[0] if "." in own[0] else own[0]) if own else ""
            name = name or f"{node['op'].split(':')[-1]}_{k}"
            if name in used:
                name += f"_{k}"
            while name in used:
                name += "_"
            used.add(name)
            node["name"] = name
            weight = constants.get(node["inputs"][1]) if node["op"] == "Conv" and len(node["inputs"]) > 1 else None
            if weight and len(weight["dims"]) >= 3 and "kernel_shape" not in node["attrs"]:
                node["attrs"]["kernel_shape"] = (6, weight["dims"][2:])


def primed(_cache=[]):  # noqa: B006
    """6. The models after the priming networks."""
    import copy

    if not _cache:
        here = Path(__file__).parents[2] / "engine/formats"
        data = bytes(int(x) for x in re.findall(r"\d+", here.joinpath("prime.inc").read_text()))
        c, models = Coder(data), Models()
        for _ in range(int(here.joinpath("prime_count.inc").read_text())):
            Graph(c, models)
        assert c.length() == len(data)
        _cache.append(models)
    return copy.deepcopy(_cache[0])


# ---- 7. exact files ------------------------------------------------------------------------------------------------


# Which fields of a message hold messages that hold tensors.
FIELDS = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
}
FIELDS_1 = {"model": {7: "graph"}, "graph": {5: "tensor"}}


class Skeleton:
    def __init__(self, c, major):
        self.c, self.major, self.data = c, major, bytearray()
        sizes = Number()
        self.full, self.size = sizes.code(c), sizes.code(c)
        if major == 1:
            self.first_version(primed())
        else:
            self.text(Models(), min(self.size, 1 << 20))

    def byte(self, models, names, group, more=None):
        node = 1
        for b in range(7, -1, -1):
            at = [h(n, node) for n in names]
            if more:
                at[10] = more(node, b)
            node = 2 * node + models.decide(self.c, at, group)
        self.data.append(node - 256)

    def first_version(self, models):
        last, word = [0] * 5, 0
        for i in range(self.size):
            if i >= 1 << 20:
                self.data.append(self.c.bits(8))
                continue
            names = [h(100, 0), h(101, last[0]), h(102, *last[:2]), h(103, *last[:3]), h(104, *last[:4]), h(105, *last),
                     h(106, word), h(107, *last[1:3])]  # fmt: skip
            self.byte(models, names, 3)
            node = 256 + self.data[-1]
            word = h(word, node) if bytes([node - 256]).isalpha() else 0
            last = [node, *last[:4]]

    def text(self, models, size):
        last, word, words, at, length, seen = [0] * 6, 0, 0, 0, 0, {}
        data = self.data
        for i in range(size):
            expected, near, hit = data[at] + 256 if at else 0, min(length, 32), False
            if near >= 20:
                hit = models.decide(self.c, [h(112, near), h(113, expected), h(114, expected, *last[:2])], 3)
                if hit:
                    data.append(expected - 256)
                else:
                    expected = near = 0
            if not hit:

                def more(node, b, expected=expected, near=near):
                    agrees = expected != 0 and expected >> (b + 1) == node
                    return h(111, 2 + (expected >> b & 1) if agrees else 0, near)

                names = [h(100, 0), h(101, last[0]), h(102, *last[:2]), h(103, *last[:3]), h(104, *last[:4]),
                         h(105, *last), h(106, word), h(107, *last[1:3]), h(108, expected, near), h(109, word, words),
                         0, h(110, expected, last[0])]  # fmt: skip
                self.byte(models, names, 1 if near else 0, more)
            node = 256 + data[-1]
            letter = bytes([node - 256]).isalpha()
            if not letter and word:
                words = word
            word = h(word, node) if letter else 0
            last = [node, *last[:5]]
            if at and data[at] == data[-1]:
                at, length = at + 1, length + 1
            else:
                at = length = 0
            if i + 1 < 5:
                continue
            key = h(0, *reversed(data[-5:])) >> 46
            if not at and key in seen:
                at = seen[key]
                while length < min(32, at) and data[at - 1 - length] == data[i - length]:
                    length += 1
                if length < 5:
                    at = length = 0
            seen[key] = i + 1

    def find_cuts(self):
        self.cuts, self.at, self.gone = [], 0, 0
        self.message(self.full, "model", 0)

    def varint(self):
        x = shift = 0
        while True:
            b = self.data[self.at - self.gone]
            self.at += 1
            x |= (b & 127) << shift
            shift += 7
            if b < 128:
                return x & M64

    def message(self, end, kind, depth):
        dims, dtype, name, done = [], None, "", False
        tensor = kind == "tensor"
        inner = (FIELDS_1 if self.major == 1 else FIELDS).get(kind, {})
        while self.at < end:
            key = self.varint()
            field, wire = key >> 3, key & 7
            if wire == 2:
                length = self.varint()
                stop = self.at + length
                if field in inner and depth < 64:
                    self.message(stop, inner[field], depth + 1)
                elif tensor and field == 1:
                    while self.at < stop:
                        dims.append(self.varint())
                elif tensor and field == 8:
                    name = bytes(self.data[self.at - self.gone : stop - self.gone]).decode()
                elif tensor and dtype is not None and not done:
                    done = self.cut(field, length, name, dtype, dims)
                self.at = stop
            elif wire == 0:
                value = self.varint()
                if tensor and field == 1:
                    dims.append(value)
                elif tensor and field == 2:
                    dtype = value
            else:
                self.at += 8 if wire == 1 else 4

    def cut(self, field, length, name, dtype, dims):
        if not (field == 9 or (self.major > 1 and (field, dtype) in ((4, 1), (10, 11)))):
            return False
        known = length and dtype in WIDTH and len(dims) <= 16 and all(0 < d < 1 << 63 for d in dims)
        known = known and int(np.prod(dims, dtype=object) or 1) * WIDTH[dtype] // 8 == length
        if not known if self.major == 1 else length < 12:
            return False
        if not known:
            dtype = {4: 1, 9: 2, 10: 11}[field]
            dims = [length * 8 // WIDTH[dtype]]
        self.cuts.append({"at": self.at, "name": name, "dtype": dtype, "dims": list(dims)})
        self.gone += length
        return True


# ---- 1. container --------------------------------------------------------------------------------------------------


class Parts:
    """Hands each stream the bytes it may use and checks the checksums."""

    def __init__(self, data):
        self.data, self.at, self.guarded, self.major = data, 5 + bool(data[4] & 4), 0, data[3] >> 4
        self.sectioned = data[4] & 1
        self.end = len(data) if self.sectioned else len(data) - 4
        self.stop = self.at if self.sectioned else self.end
        if not self.sectioned:
            assert zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "little")

    def open(self):
        length = shift = 0
        while True:
            b = self.data[self.at]
            self.at += 1
            length |= (b & 127) << shift
            shift += 7
            if b < 128:
                break
        self.stop = self.at + length
        crc = int.from_bytes(self.data[self.stop : self.stop + 4], "little")
        assert zlib.crc32(self.data[self.guarded : self.stop]) == crc

    def next(self, decode):
        if self.sectioned and self.at == self.stop:
            self.open()
        out, used = decode(self.data[self.at : self.stop])
        self.at += used
        if self.sectioned and self.at == self.stop:
            self.at = self.guarded = self.stop = self.at + 4
        assert self.major > 1 or not self.sectioned or self.at == self.stop
        return out


def support(c, models, t, at):
    """Which kept elements of a tensor stay at the next level; the others become zero."""
    w, e = WIDTH[t["dtype"]], EXPONENT[t["dtype"]]
    size, dims = w // 8, t["dims"]
    data = bytearray(t["data"])
    n = len(data) // size
    stride = n // dims[0] if len(dims) > 1 else n
    taps = math.prod(dims[2:])
    x = [int.from_bytes(data[i * size : (i + 1) * size], "little") for i in range(n)]
    state, last = [0] * n, 0
    few = sum(v != 0 for v in x) <= 1 << 20
    for i, v in enumerate(x):
        if not v:
            continue
        up, back, *near = (state[i - b] if i >= b else 0 for b in (stride, taps, 1, 2, 3))
        near = near[0] + 4 * near[1] + 16 * near[2]
        fine = (v & ((1 << (w - 1)) - 1)) >> (w - 1 - e - 4)
        names = [
            h(10, at, fine), h(11, fine >> 2, up), h(12, at, i // stride, last & 1), h(13, at, i % stride),
            h(14, up, back, near), h(15, at, fine >> 2, up, back), h(16, at, last), h(17, at, up, near),
        ]  # fmt: skip
        stays = models.decide(c, names if few else names[:2], 0)
        last = (last * 2 + stays) & 15
        state[i] = 1 + stays
        if not stays:
            data[i * size : (i + 1) * size] = bytes(size)
    return bytes(data)


def next_level(parts, tensors):
    """The tensors of the next level, in place."""

    def level(span):
        c, models, others, before = Coder(span), Models(Hashed(18)), [], 0
        for at, t in enumerate((t for t in tensors if 0 not in t["dims"]), 1):
            rank = len(t["dims"])
            if models.decide(c, [h(1, before), h(2, before, rank)], 1):
                before = 0
            elif models.decide(c, [h(3, before), h(4, before, rank)], 1):
                before, t["data"] = 1, support(c, models, t, at)
            else:
                before = 2
                others.append(t)
        return others, c.length()

    earlier = []
    for t in parts.next(level):

        def decode(span, t=t):
            found = Tensor(t["dtype"], t["dims"], span, earlier)
            return found.bytes(), found.used

        t["data"] = parts.next(decode)
        earlier.append(t["data"])


def read(data, level=None):
    assert data[:3] == b"SCT"
    parts = Parts(data)
    major, exact = parts.major, data[4] & 2
    assert major in (1, 2, 3, 4)
    earlier = None if major == 1 else []

    def first(span):
        c = Coder(span)
        out = Skeleton(c, major) if exact else Graph(c, primed())
        return out, c.length()

    def tensor(dtype, dims):
        def decode(span):
            t = Tensor(dtype, dims, span, earlier)
            return t.bytes(), t.used

        empty = major > 1 and 0 in dims
        out = b"" if empty else parts.next(decode)
        if earlier is not None:
            earlier.append(out)
        return out

    head = parts.next(first)
    if exact:
        if major > 1 and head.size > 1 << 20:
            head.data += tensor(2, [head.size - (1 << 20)])
        head.find_cuts()
    for t in head.cuts if exact else head.typed:
        t["data"] = tensor(t["dtype"], t["dims"])
    if data[4] & 4:
        loosest = [t["data"] for t in head.typed]
        for k in range(1, data[5]):
            if level is None or k <= level:
                next_level(parts, head.typed)
        if level is not None and level < data[5] - 1:
            return head
        if level is None:
            for t, values in zip(head.typed, loosest, strict=True):
                t["data"] = values
    assert parts.at == parts.end, "bytes left over"
    if not exact:
        return head
    out, taken = bytearray(), 0
    for cut in head.cuts:
        keep = cut["at"] - len(out)
        out += head.data[taken : taken + keep] + cut["data"]
        taken += keep
    return bytes(out + head.data[taken:])
