"""A slow reader of `.sct` files in plain Python, written from docs/format.md only: the oracle of the format tests.

`read(bytes)` gives a dict: nodes, tensors, inputs, outputs, opsets; or, for an exact file, the ONNX bytes.
"""

from __future__ import annotations

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
    def __init__(self, dtype, dims, data):
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
        if self.nnz == 0:
            return
        self.S = Number()
        self.codec_header()
        if self.mixed:
            self.mixed_body()
        else:
            [self.dense, None, self.gaps, self.nm][self.layout]()

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
        if self.layout == 0 and self.zero.code(self.c):
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
            if self.layout == 2 and self.values[i] == 0:
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


# ---- 5. graph ------------------------------------------------------------------------------------------------------

(IR, OPSET, DOMAIN, INPUT, OUTPUT, DTYPE, HASSHAPE, RANK, FREE, SIZE, SYMBOL, MORE, OP, NEWOP, INPUTS, REF, OUTPUTS,
 OUT, ATTR, NEWATTR, KIND, INT, FLOAT, TEXT, LIST, INIT, SAME, DIM, EXTRA, COUNT) = range(1, 31)  # fmt: skip


def h(a, *rest):
    for b in rest:
        x = ((a ^ b) * 0x9E3779B97F4A7C15) & M64
        a = x ^ x >> 29
    return a


class Models:
    def __init__(self):
        self.counters = defaultdict(Counter)
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


class Skeleton:
    def __init__(self, c, models):
        sizes = Number()
        self.full, size = sizes.code(c), sizes.code(c)
        self.data, last, word = bytearray(), [0] * 5, 0
        for i in range(size):
            if i >= 1 << 20:
                self.data.append(c.bits(8))
                continue
            names = [h(100, 0), h(101, last[0]), h(102, *last[:2]), h(103, *last[:3]), h(104, *last[:4]), h(105, *last),
                     h(106, word), h(107, *last[1:3])]  # fmt: skip
            node = 1
            for _ in range(8):
                node = 2 * node + models.decide(c, [h(n, node) for n in names], 3)
            self.data.append(node - 256)
            word = h(word, node) if bytes([node - 256]).isalpha() else 0
            last = [node, *last[:4]]
        self.cuts, self.at, self.gone = [], 0, 0
        self.message(self.full, [7, 5])

    def varint(self):
        x = shift = 0
        while True:
            b = self.data[self.at - self.gone]
            self.at += 1
            x |= (b & 127) << shift
            shift += 7
            if b < 128:
                return x & M64

    def message(self, end, path):
        dims, dtype, name, done = [], None, "", False
        while self.at < end:
            key = self.varint()
            field, wire = key >> 3, key & 7
            if wire == 2:
                length = self.varint()
                stop = self.at + length
                if path and field == path[0]:
                    self.message(stop, path[1:])
                elif not path and field == 1:
                    while self.at < stop:
                        dims.append(self.varint())
                elif not path and field == 8:
                    name = bytes(self.data[self.at - self.gone : stop - self.gone]).decode()
                elif not path and field == 9 and dtype in WIDTH and not done:
                    positive = len(dims) <= 16 and all(0 < d < 1 << 63 for d in dims)
                    if length and positive and int(np.prod(dims, dtype=object) or 1) * WIDTH[dtype] // 8 == length:
                        self.cuts.append({"at": self.at, "name": name, "dtype": dtype, "dims": dims})
                        self.gone += length
                        done = True
                self.at = stop
            elif wire == 0:
                value = self.varint()
                if not path and field == 1:
                    dims.append(value)
                elif not path and field == 2:
                    dtype = value
            else:
                self.at += 8 if wire == 1 else 4


# ---- 1. container --------------------------------------------------------------------------------------------------


def read(data):
    assert data[:3] == b"SCT"
    assert data[3] >> 4 == 1
    sectioned, exact = data[4] & 1, data[4] & 2
    at, guarded = 5, 0
    if not sectioned:
        assert zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "little")
        data = data[:-4]

    def part(decode):
        nonlocal at, guarded
        if not sectioned:
            out, used = decode(data[at:])
            at += used
            return out
        length = shift = 0
        while True:
            b = data[at]
            at += 1
            length |= (b & 127) << shift
            shift += 7
            if b < 128:
                break
        assert zlib.crc32(data[guarded : at + length]) == int.from_bytes(data[at + length : at + length + 4], "little")
        out, used = decode(data[at : at + length])
        assert used == length
        at = guarded = at + length + 4
        return out

    def first(span):
        c = Coder(span)
        out = (Skeleton if exact else Graph)(c, primed())
        return out, c.length()

    def tensor(dtype, dims):
        def decode(span):
            t = Tensor(dtype, dims, span)
            return t.bytes(), t.used

        return part(decode)

    head = part(first)
    for t in head.cuts if exact else head.typed:
        t["data"] = tensor(t["dtype"], t["dims"])
    assert at == len(data), "bytes left over"
    if not exact:
        return head
    out, taken = bytearray(), 0
    for cut in head.cuts:
        keep = cut["at"] - len(out)
        out += head.data[taken : taken + keep] + cut["data"]
        taken += keep
    return bytes(out + head.data[taken:])
