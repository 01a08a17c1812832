#!/usr/bin/env python3
"""Derive the polynomial coefficients of graphc.codegen.vecmath.

Each polynomial is a weighted minimax fit by Remez' exchange algorithm on a Chebyshev grid, in
60-digit arithmetic (Remez 1934; Muller, "Elementary Functions", 3rd ed., chapter 3).  Coefficients
are rounded to the format they are used in one at a time, lowest order first, and those of higher
order are fitted again after each rounding, so that they absorb the rounding error of the first
(the idea of Brisebarre and Chevillard's `fpminimax`, done greedily).

    tools/fit_vecmath.py            write graphc/codegen/vecmath/coefficients.py
    tools/fit_vecmath.py --check    fail if that file differs from what would be written
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mpmath as mp
import numpy as np

Real = Callable[[mp.mpf], mp.mpf]
TARGET = Path(__file__).resolve().parents[1] / "graphc" / "codegen" / "vecmath" / "coefficients.py"
GRID_PER_COEFFICIENT = 30

mp.mp.dps = 60


@dataclass(frozen=True)
class Fit:
    """Find p of `terms` coefficients with weight·(target − p) small on [low, high].

    `weight` turns an error of p into a relative error of the function p is used for; `target` is
    what p approximates (the function less its exact leading terms, divided by a power of x).
    """

    name: str
    why: str
    target: Real
    weight: Real
    low: mp.mpf
    high: mp.mpf
    terms: int
    format: type[np.floating]


def chebyshev_grid(low: mp.mpf, high: mp.mpf, count: int) -> list[mp.mpf]:
    """An even number of points that cluster at the ends and avoid 0 in a symmetric interval."""
    middle, half = (low + high) / 2, (high - low) / 2
    return [middle - half * mp.cos(mp.pi * (2 * i + 1) / (2 * count)) for i in range(count)]


def alternation(errors: list[mp.mpf], count: int) -> list[int]:
    """`count` grid indices where the error alternates in sign and is locally largest."""
    peaks: list[int] = []
    for i, error in enumerate(errors):
        if peaks and (error > 0) == (errors[peaks[-1]] > 0):
            if abs(error) > abs(errors[peaks[-1]]):
                peaks[-1] = i
        else:
            peaks.append(i)
    while len(peaks) > count:  # drop the weaker end, which keeps the alternation
        peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
    return peaks


def weighted_errors(
    xs: list[mp.mpf],
    values: list[mp.mpf],
    weights: list[mp.mpf],
    first: int,
    coefficients: list[mp.mpf],
) -> list[mp.mpf]:
    return [
        w * (v - x**first * mp.polyval(coefficients[::-1], x))
        for x, v, w in zip(xs, values, weights, strict=True)
    ]


def remez(
    xs: list[mp.mpf], values: list[mp.mpf], weights: list[mp.mpf], first: int, terms: int
) -> list[mp.mpf]:
    """Coefficients of x^first … x^(first+terms−1) with the least largest weighted error."""
    n = len(xs)
    nodes = [(2 * k + 1) * n // (2 * (terms + 1)) for k in range(terms + 1)]
    best: tuple[list[mp.mpf], mp.mpf] | None = None
    for _ in range(30):
        system = mp.matrix(terms + 1, terms + 1)
        right = mp.matrix(terms + 1, 1)
        for row, i in enumerate(nodes):
            for column in range(terms):
                system[row, column] = xs[i] ** (first + column)
            system[row, terms] = (-1) ** row / weights[i]
            right[row] = values[i]
        solution = mp.lu_solve(system, right)
        coefficients = [solution[k] for k in range(terms)]
        errors = weighted_errors(xs, values, weights, first, coefficients)
        largest = max(abs(e) for e in errors)
        if best is None or largest < best[1]:
            best = coefficients, largest
        if largest <= abs(solution[terms]) * (1 + mp.mpf("1e-6")):
            break
        exchanged = alternation(errors, terms + 1)
        if len(exchanged) < terms + 1 or exchanged == nodes:
            break
        nodes = exchanged
    assert best is not None
    return best[0]


def solve(fit: Fit) -> tuple[list[float], float]:
    """Rounded coefficients, lowest order first, and the weighted error they reach (log2)."""
    xs = chebyshev_grid(fit.low, fit.high, 2 * (GRID_PER_COEFFICIENT * fit.terms // 2))
    targets = [fit.target(x) for x in xs]
    weights = [abs(fit.weight(x)) for x in xs]
    rounded: list[float] = []
    residual = list(targets)
    coefficients: list[mp.mpf] = []
    for order in range(fit.terms):
        refitted = remez(xs, residual, weights, order, fit.terms - order)
        # x^order … may be no Chebyshev system around 0: then Remez can stop short of the best.
        kept = coefficients[1:]
        coefficients = min(
            (c for c in (refitted, kept) if c),
            key=lambda c: max(map(abs, weighted_errors(xs, residual, weights, order, c))),
        )
        value = float(fit.format(mp.nstr(coefficients[0], 40)))
        rounded.append(value)
        residual = [r - mp.mpf(value) * x**order for r, x in zip(residual, xs, strict=True)]
    worst = max(abs(w * r) for w, r in zip(weights, residual, strict=True))
    return rounded, float(mp.log(worst, 2))


def series(f: Real, subtract: int, divide: int) -> Real:
    """(f − its first `subtract` Taylor terms at 0) / x^divide, without cancellation near 0."""
    taylor = mp.taylor(f, 0, 40)

    def value(x: mp.mpf) -> mp.mpf:
        with mp.workdps(120):
            if abs(x) < mp.mpf("1e-3"):
                return mp.polyval(taylor[:subtract - 1 : -1], x) * x ** (subtract - divide)
            head = mp.polyval(taylor[:subtract][::-1], x) if subtract else mp.mpf(0)
            return (f(x) - head) / x**divide

    return value


def of_square(f: Real) -> Real:
    """z ↦ f(√z): an even function as a function of x²."""
    return lambda z: f(mp.sqrt(z))


LN2 = mp.log(2)
#: Reduced arguments exceed ln2/2 by what rounding of x/ln2 adds.
EXP_EDGE = LN2 / 2 * mp.mpf("1.0001")
#: log's mantissas: [2/3, 4/3) for a polynomial in f, [√½, √2) for one in (f/(2+f))².
LOG_F32 = (-mp.mpf(1) / 3, mp.mpf(1) / 3)
ATANH_Z = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2
TRIG_Z = (mp.pi / 4 * mp.mpf("1.0001")) ** 2
ERF_SPLIT = mp.mpf(1)
#: tanh is ½ there: above, 1 − 2/(e + 1) loses nothing.
TANH_SPLIT = mp.mpf("0.55")

f32, f64 = np.float32, np.float64


def atanh_tail(scale: mp.mpf) -> Real:
    """scale·(atanh(s)/s − 1)/s² as a function of z = s²; log((1+s)/(1−s)) = 2·atanh(s)."""
    return of_square(lambda s: scale * (mp.atanh(s) / s - 1) / s**2)


def neg_log_erfc(t: mp.mpf) -> mp.mpf:
    return -mp.log(mp.erfc(t))


def erf_fits(tag: str, split: mp.mpf, limit: int, small: int, large: int, fmt: type) -> list[Fit]:
    def erf_weight(t: mp.mpf) -> mp.mpf:  # d erf / d g where erf = 1 − exp(−g), relative to erf
        return mp.erfc(t) / mp.erf(t)

    return [
        Fit(
            f"ERF_SMALL_{tag}", "erf(x) = x + x·p(x²), |x| < ERF_SPLIT",
            of_square(lambda x: mp.erf(x) / x - 1), of_square(lambda x: x / mp.erf(x)),
            mp.mpf(0), split**2, small, fmt,
        ),
        Fit(
            f"ERF_LARGE_{tag}", f"erf(x) = 1 − exp(−p(x − ERF_SPLIT)), ERF_SPLIT ≤ x ≤ {limit}",
            lambda u: neg_log_erfc(u + split), lambda u: erf_weight(u + split),
            mp.mpf(0), limit - split, large, fmt,
        ),
    ]


def fits() -> list[Fit]:
    exp_tail = series(mp.exp, 2, 2)
    log_tail = series(mp.log1p, 2, 2)
    exp2_tail = series(lambda r: mp.mpf(2) ** r, 1, 1)
    sin_tail = of_square(lambda x: (mp.sin(x) / x - 1) / x**2)
    cos_tail = of_square(lambda x: (mp.cos(x) - 1 + x**2 / 2) / x**4)

    out: list[Fit] = []
    for tag, fmt, exp_terms, expm1_terms, exp2_terms in (
        ("F32", f32, 5, 6, 7),
        ("F64", f64, 10, 11, 12),
    ):
        out += [
            Fit(f"EXP_{tag}", "exp(r) = 1 + r + r²·p(r), |r| ≤ ln2/2", exp_tail,
                lambda r: r**2 / mp.exp(r), -EXP_EDGE, EXP_EDGE, exp_terms, fmt),
            Fit(f"EXPM1_{tag}", "exp(r) − 1 = r + r²·p(r), |r| ≤ ln2/2", exp_tail,
                lambda r: r**2 / mp.expm1(r), -EXP_EDGE, EXP_EDGE, expm1_terms, fmt),
            Fit(f"EXP2_{tag}", "2^r = 1 + r·p(r), |r| ≤ 1/2", exp2_tail,
                lambda r: r / mp.mpf(2) ** r, -mp.mpf(1) / 2, mp.mpf(1) / 2, exp2_terms, fmt),
        ]
    out += [
        Fit("EXP_STEP_F32", "exp(r) = 1 + r + r²·p(r), |r| ≤ ln2/32", exp_tail,
            lambda r: r**2 / mp.exp(r), -EXP_EDGE / 16, EXP_EDGE / 16, 2, f32),
        Fit("LOG_F32", "log(1+f) = f + f²·p(f), −1/3 ≤ f ≤ 1/3", log_tail,
            lambda f: f**2 / mp.log1p(f), *LOG_F32, 9, f32),
        Fit("LOG_F64", "log((1+s)/(1−s)) = 2s + s·z·p(z), z = s²", atanh_tail(mp.mpf(2)),
            of_square(lambda s: s**3 / mp.atanh(s)), mp.mpf(0), ATANH_Z, 7, f64),
        Fit("POW_LOG2", "log2((1+s)/(1−s)) = s·(2/ln2 + z·p(z)), z = s²; for pow in float32",
            atanh_tail(2 / LN2), of_square(lambda s: s**3 / mp.atanh(s)),
            mp.mpf(0), ATANH_Z, 5, f64),
        Fit("POW_EXP2", "2^r = 1 + r·p(r), |r| ≤ 1/2; for pow in float32", exp2_tail,
            lambda r: r / mp.mpf(2) ** r, -mp.mpf(1) / 2, mp.mpf(1) / 2, 7, f64),
    ]
    for tag, sin_terms, cos_terms in (("F32", 3, 3), ("F64", 6, 6)):
        out += [
            Fit(f"SIN_{tag}", "sin(r) = r + r·z·p(z), z = r², |r| ≤ π/4", sin_tail,
                of_square(lambda r: r**3 / mp.sin(r)), mp.mpf(0), TRIG_Z, sin_terms, f64),
            Fit(f"COS_{tag}", "cos(r) = 1 − z/2 + z²·p(z), z = r², |r| ≤ π/4", cos_tail,
                of_square(lambda r: r**4 / mp.cos(r)), mp.mpf(0), TRIG_Z, cos_terms, f64),
        ]
    out += [
        Fit("TANH_F64", "tanh(x) = x + x·z·p(z), z = x² ≤ TANH_SPLIT²",
            of_square(lambda x: (mp.tanh(x) / x - 1) / x**2),
            of_square(lambda x: x**3 / mp.tanh(x)), mp.mpf(0), TANH_SPLIT**2, 11, f64),
    ]
    out += erf_fits("F32", ERF_SPLIT, 4, 6, 8, f32)
    out += erf_fits("F64", ERF_SPLIT, 6, 12, 21, f64)
    return out


#: tanh in pieces: four intervals to an octave of TANH_SCALE·x + ½, from ½ to 8. From TANH_LIMIT on it is 1, with room
#: for the error of the polynomial.
TANH_SCALE = mp.mpf(float(np.float32(0.8)))
TANH_LIMIT = mp.mpf("9.25")
TANH_TERMS = 6


def exp2_steps() -> list[str]:
    """2^(i/16) as sums of two numbers, in two tables."""
    steps = [parts(mp.mpf(2) ** (mp.mpf(i) / 16), 0, 2, f32) for i in range(16)]
    tables = zip(("EXP2_STEPS_F32", "EXP2_RESTS_F32"), zip(*steps, strict=True), strict=True)
    return [line for name, numbers in tables for line in (f"{name} = (", *(f"    {f32(n)!s}," for n in numbers), ")")]


def tanh_pieces() -> tuple[list[str], list[list[str]], float]:
    """The middles of the 16 intervals, the coefficients of each order, and the largest error (log2).

    In the order of their lookup: by the last two bits of the exponent of TANH_SCALE·x + ½, and the first two of its
    mantissa. The exponents of ½ to 4 are 126 to 129, so that those of 1 come last.
    """
    found = []
    for octave in (1, 2, -1, 0):
        for quarter in range(4):
            edges = ((mp.mpf(2) ** octave * (4 + quarter + k) / 4 - mp.mpf(1) / 2) / TANH_SCALE for k in (0, 1))
            found.append(tanh_piece(*edges))
    rows = [[str(np.float32(coefficients[k])) for _, coefficients, _ in found] for k in range(TANH_TERMS)]
    return [str(np.float32(middle)) for middle, _, _ in found], rows, max(error for _, _, error in found)


def tanh_piece(low: mp.mpf, high: mp.mpf) -> tuple[float, list[float], float]:
    """Middle, coefficients and error (log2) of one interval, a little wider than it is."""
    low, high = low * (1 - mp.mpf(2) ** -22), high * (1 + mp.mpf(2) ** -22)
    if low == 0:  # tanh(x) = x·p(x), right to the last digit of the smallest x
        coefficients, error = solve(Fit("", "", of_quotient(mp.tanh), lambda x: 1 / of_quotient(mp.tanh)(x), low, high,
                                        TANH_TERMS - 1, f32))
        return 0.0, [0.0, *coefficients], error

    def around(middle: mp.mpf) -> Fit:
        return Fit("", "", lambda w: mp.tanh(middle + w), lambda w: 1 / mp.tanh(middle + w), low - middle, high - middle,
                   TANH_TERMS, f32)

    # The first coefficient counts in full. It is tanh(middle) and a little: of the numbers in the middle, the one where
    # that is next to a float32.
    fit = around((low + high) / 2)
    xs = chebyshev_grid(fit.low, fit.high, GRID_PER_COEFFICIENT * TANH_TERMS)
    first = remez(xs, [fit.target(x) for x in xs], [fit.weight(x) for x in xs], 0, TANH_TERMS)[0]
    extra = first - fit.target(mp.mpf(0))

    def lost(middle: float) -> mp.mpf:
        value = mp.tanh(mp.mpf(middle)) + extra
        return abs(value - mp.mpf(float(f32(mp.nstr(value, 40)))))

    centre = (low + high) / 2
    near = (float(f32(centre + (high - low) * k / 40000)) for k in range(-400, 401))
    middle = min(near, key=lost)
    return (middle, *solve(around(mp.mpf(middle))))


def of_quotient(f: Real) -> Real:
    """f(x)/x for a function that is x next to 0."""
    return lambda x: f(x) / x if x else mp.mpf(1)


def truncated(value: mp.mpf, bits: int) -> mp.mpf:
    """The leading `bits` bits of a positive number."""
    unit = mp.mpf(2) ** (bits - 1 - int(mp.floor(mp.log(value, 2))))
    return mp.floor(value * unit) / unit


def parts(value: mp.mpf, first_bits: int, count: int, fmt: type) -> list[float]:
    """`value` as a sum of `count` numbers of the format, the first cut to `first_bits` bits."""
    out = [float(truncated(value, first_bits))] if first_bits else []
    while len(out) < count:
        out.append(float(fmt(mp.nstr(value - mp.fsum(out), 40))))
    return out


def constants() -> list[str]:
    """Constants of argument reduction.  n·ln2's first part is exact for every exponent n."""
    return [
        f"{name} = {tuple(parts(value, bits, count, fmt))!r}"
        for name, value, bits, count, fmt in (
            ("LN2_F32", LN2, 15, 2, f32),
            ("LN2_F64", LN2, 42, 2, f64),
            ("LOG2E_F32", 1 / LN2, 0, 2, f32),
            ("LOG2E_F64", 1 / LN2, 0, 2, f64),
            ("HALF_PI", mp.pi / 2, 0, 3, f64),
        )
    ]


def turn_bands() -> list[tuple[float, ...]]:
    """Bands of huge float32 numbers: (from, 2^-B, 2^B mod 2π in two parts).

    In a band from 2^b on, x·2^-B is an integer, because B ≤ b − 23; so x and
    (x·2^-B)·(2^B mod 2π) differ by whole turns.  The latter stays below 2^48 up to where the next
    band begins; of the admissible B, the one that lasts longest.
    """
    turn, bands, start = 2 * mp.pi, [], 48
    while start < 128:
        best, end = 0, 0
        rest = mp.mpf(0)
        for b in range(start - 35, start - 22):
            residue = mp.mpf(2) ** b - mp.nint(mp.mpf(2) ** b / turn) * turn
            reach = b + 48 - int(mp.ceil(mp.log(abs(residue), 2)))
            if reach > end:
                best, end, rest = b, reach, residue
        bands.append((2.0**start, 2.0**-best, *parts(rest, 0, 2, f64)))
        start = end
    return bands


def text() -> str:
    lines = [
        '"""Minimax coefficients, lowest order first.  Written by tools/fit_vecmath.py: do not edit.',
        "",
        "The number after each formula is the largest weighted (relative) error of the polynomial",
        'with these rounded coefficients, evaluated exactly.\n"""',
        "",
        "#: Sums of numbers of the format, the largest first.",
        *constants(),
        "",
        "#: Huge float32 angles: from, 2^-B, and 2^B mod 2π in two parts.",
        "TURN_BANDS = (",
        *(f"    {band!r}," for band in turn_bands()),
        ")",
        "",
        "#: Where erf and tanh change formulas.",
        f"ERF_SPLIT = {float(ERF_SPLIT)!r}",
        f"TANH_SPLIT = {float(TANH_SPLIT)!r}",
    ]
    middles, rows, error = tanh_pieces()
    print(f"TANH_PIECES    {TANH_TERMS:2d} terms  2^{error:.1f}", file=sys.stderr)
    lines += [
        "",
        "#: 2^(i/16), and what rounding lost",
        *exp2_steps(),
        "",
        f"#: tanh(x) = Σ pₖ·(x − middle)^k in 16 pieces, x ≤ TANH_LIMIT: 2^{error:.1f}",
        f"TANH_SCALE = {float(TANH_SCALE)!r}",
        f"TANH_LIMIT = {float(TANH_LIMIT)!r}",
        "TANH_MIDDLES_F32 = (",
        *(f"    {middle}," for middle in middles),
        ")",
        "TANH_PIECES_F32 = (",
        *(line for row in rows for line in ("    (", *(f"        {number}," for number in row), "    ),")),
        ")",
    ]
    for fit in fits():
        coefficients, error = solve(fit)
        print(f"{fit.name:14s} {len(coefficients):2d} terms  2^{error:.1f}", file=sys.stderr)
        shown = [str(np.float32(c)) if fit.format is f32 else repr(c) for c in coefficients]
        lines += ["", f"#: {fit.why}: 2^{error:.1f}", f"{fit.name} = ("]
        lines += [f"    {c}," for c in shown] + [")"]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    written = text()
    if parser.parse_args().check:
        same = TARGET.read_text() == written
        print("coefficients agree" if same else f"{TARGET.name} differs from what is derived")
        return 0 if same else 1
    TARGET.write_text(written)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
