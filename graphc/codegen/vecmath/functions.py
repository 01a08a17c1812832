"""The elementary functions as straight-line formulas over `Value`, for float32 and float64.

Each takes and returns one lane; argument reduction by powers of two goes through the exponent
bits, special values through selects.  Products that must be exact are explicit `fma`s, so
contraction does no harm; flags that ignore NaN, infinities, the sign of zero or the order of
additions (`fastmath=True`) would break them.  Errors: at most 2 ULP, `ERROR_BOUNDS` for each.

Methods: Muller, "Elementary Functions" (3rd ed., 2016), chapters 3 (minimax polynomials) and 11
(argument reduction); log in float64 after FreeBSD's msun; erf's exponent as a polynomial after
N. Juffa.
"""

from __future__ import annotations

import math

from ..host import vector_bytes
from . import coefficients as c
from .emit import F32, F64, Value, bits_of, fma, horner, select

#: ln 2 and 1/ln 2, each as a sum of two numbers of the format.
LN2 = {F32: c.LN2_F32, F64: c.LN2_F64}
LOG2E = {F32: c.LOG2E_F32, F64: c.LOG2E_F64}

EXP = {F32: c.EXP_F32, F64: c.EXP_F64}
EXPM1 = {F32: c.EXPM1_F32, F64: c.EXPM1_F64}
EXP2 = {F32: c.EXP2_F32, F64: c.EXP2_F64}
ERF_SMALL = {F32: c.ERF_SMALL_F32, F64: c.ERF_SMALL_F64}
ERF_LARGE = {F32: c.ERF_LARGE_F32, F64: c.ERF_LARGE_F64}

#: Beyond these exp and 2^x over- or underflow; the clamp keeps the exponent arithmetic in range.
EXP_RANGE = {F32: (-104.0, 89.0), F64: (-746.0, 710.0)}
EXP2_RANGE = {F32: (-151.0, 128.0), F64: (-1076.0, 1024.0)}
#: tanh rounds to 1 from here on, and erf.
TANH_ONE = {F32: 9.1, F64: 19.1}
ERF_ONE = {F32: 4.0, F64: 6.0}


# -- pieces ---------------------------------------------------------------------------------------
def clamp(x: Value, low: float, high: float) -> Value:
    """A NaN stays a NaN."""
    x = select(x > high, high, x)
    return select(x < low, low, x)


def nearest(x: Value, factor: float, offset: int = 0) -> tuple[Value, Value]:
    """n = x·factor rounded to an integer, as a float; and an integer that ends in n + offset.

    Adding 1.5·2^mantissa rounds, and leaves n in the low bits; the bits above are not cleared,
    since all users shift them out.
    """
    shift = x.format.shift + offset
    shifted = fma(factor, x, shift)
    return shifted - shift, shifted.bits()


def reduce_ln2(x: Value, n: Value) -> Value:
    """x − n·ln2."""
    high, low = LN2[x.format]
    return fma(-low, n, fma(-high, n, x))


def power_of_two(biased: Value) -> Value:
    """2^n from n + bias, for an exponent n of a normal number (0 for the next one below)."""
    return (biased << biased.format.mantissa).from_bits()


def scale(p: Value, twice_biased: Value) -> Value:
    """p·2^n from n + 2·bias as `nearest` gives it; over- and underflow round once."""
    f = p.format
    if vector_bytes() == 64:
        return p.ldexp(twice_biased - bits_of(f, f.shift + 2 * f.bias))
    half = twice_biased >> 1  # in two steps
    return p * power_of_two(half) * power_of_two(twice_biased - half)


def exp_reduced(r: Value) -> Value:
    """exp(r), |r| ≤ ln2/2."""
    return fma(fma(horner(r, EXP[r.format]), r, 1.0), r, 1.0)


def expm1_reduced(x: Value, n: Value) -> Value:
    """exp(r) − 1, r = x − n·ln2, |r| ≤ ln2/2, with what rounding r lost: r counts in full here."""
    high, low = LN2[x.format]
    exact = fma(-high, n, x)
    r = fma(-low, n, exact)
    lost = fma(-low, n, exact - r)
    return r + fma(r * r, horner(r, EXPM1[r.format]), lost)


def split_exponent(x: Value, smallest: float) -> tuple[Value, Value]:
    """k and m with x = 2^k·m, smallest ≤ m < 2·smallest, for x normal and positive."""
    f = x.format
    k = (x.bits() - bits_of(f, smallest)) >> f.mantissa
    return k, (x.bits() - (k << f.mantissa)).from_bits()


def normalised(x: Value) -> tuple[Value, Value]:
    """x·2^s and the float −s, where s makes a subnormal normal and is 0 for all others."""
    f = x.format
    subnormal = x < f.min_normal
    steps = f.mantissa + 1
    return select(subnormal, x * 2.0**steps, x), select(subnormal, -float(steps), x.constant(0.0))


def log_special(x: Value, zero: float, result: Value) -> Value:
    """−inf at `zero`, NaN below; inf and NaN pass through."""
    result = select(x < math.inf, result, x)
    return select(x > zero, result, select(x.equals(zero), -math.inf, x.constant(math.nan)))


def log_reduced(f: Value, k: Value) -> Value:
    """k·ln2 + log(1 + f), f around 0: polynomial in float32, msun's `log` in float64."""
    if f.format is F32:
        return fma(math.log(2), k, fma(f * f, horner(f, c.LOG_F32), f))
    s = f / (f + 2.0)
    z = s * s
    half_square = f * f * 0.5
    tail = s * fma(z, horner(z, c.LOG_F64), half_square)
    high, low = LN2[F64]
    return fma(high, k, f - (half_square - fma(low, k, tail)))


#: Smallest mantissa of log's reduction: what its polynomial was fitted on.
LOG_START = {F32: 2 / 3, F64: math.sqrt(0.5)}


def has_tables(x: Value) -> bool:
    """Are there registers of 16 numbers of x's format, to look one up in?"""
    return x.format is F32 and vector_bytes() == 64


# -- functions ------------------------------------------------------------------------------------
def exp(x: Value) -> Value:
    """2^n·exp(r), r = x − n·ln2."""
    if has_tables(x):
        return exp_from_steps(x)
    x = clamp(x, *EXP_RANGE[x.format])
    n, exponent = nearest(x, LOG2E[x.format][0], 2 * x.format.bias)
    return scale(exp_reduced(reduce_ln2(x, n)), exponent)


def exp_from_steps(x: Value, precise: bool = False) -> Value:
    """The same with n in sixteenths, so that r is small: 2^n is a power of two times one of 16 numbers.

    If it is to be precise, with what these have lost by rounding: then little is added to the error of the last sum.

    For x = −y all of it is done with y and −r, whose signs go into constants: there are fewer operations, and LLVM
    leaves a limit out where it sees a sign, as of y².
    """
    low, high = EXP_RANGE[F32]
    y, sign = x.negated(), -1
    if y is None:
        y, sign = x, 1
    y = clamp(y, *sorted((sign * low, sign * high)))
    shift = F32.shift / 16
    shifted = fma(sign * LOG2E[F32][0], y, shift)
    n = shifted - shift
    ln2 = [sign * part for part in LN2[F32]]
    r = fma(-ln2[1], n, fma(-ln2[0], n, y))
    second, third = c.EXP_STEP_F32
    p = fma(r * r, fma(sign * third, r, second), r if sign > 0 else -r)
    index = shifted.bits()
    step = index.lookup("exp2")
    total = step + fma(step, p, index.lookup("exp2_rest")) if precise else fma(step, p, step)
    return total.scalef(n)


def exp2(x: Value) -> Value:
    """2^n·2^r, r = x − n, exactly."""
    x = clamp(x, *EXP2_RANGE[x.format])
    n, exponent = nearest(x, 1.0, 2 * x.format.bias)
    r = x - n
    return scale(fma(horner(r, EXP2[x.format]), r, 1.0), exponent)


def expm1(x: Value) -> Value:
    """2^n·(exp(r) − 1) + (2^n − 1); half of it until the end, so that 2^n does not overflow."""
    low = {F32: -20.0, F64: -40.0}[x.format]
    y = clamp(x, low, EXP_RANGE[x.format][1])
    n, exponent = nearest(y, LOG2E[x.format][0], x.format.bias - 1)
    half = power_of_two(exponent)
    result = fma(half, expm1_reduced(y, n), half - 0.5) * 2.0
    # −0.0; and half of the smallest subnormal is no number.
    return select(abs(x) < 2.0 ** -(x.format.mantissa + 2), x, result)


def log(x: Value) -> Value:
    y, adjust = normalised(x)
    k, m = split_exponent(y, LOG_START[x.format])
    return log_special(x, 0.0, log_reduced(m - 1.0, k.to_float() + adjust))


def log2(x: Value) -> Value:
    """k + log(m)/ln2 with 1/ln2 in two parts, so that it is right next to 1."""
    y, adjust = normalised(x)
    k, m = split_exponent(y, LOG_START[x.format])
    f = m - 1.0
    if x.format is F32:
        tail = f * f * horner(f, c.LOG_F32)
    else:
        s = f / (f + 2.0)
        z = s * s
        half_square = f * f * 0.5
        tail = fma(s, fma(z, horner(z, c.LOG_F64), half_square), -half_square)
    high, low = LOG2E[x.format]
    log2_m = fma(high, f, fma(low, f, tail * high))
    return log_special(x, 0.0, k.to_float() + adjust + log2_m)


def log1p(x: Value) -> Value:
    """log(2^k·(1 + f)) with f = 2^−k·x + (2^−k − 1) rounded once: f = x for small x."""
    f = x.format
    u = x + 1.0
    k, m = split_exponent(u, LOG_START[f])
    inverse = power_of_two(f.bias - k)
    reduced = fma(inverse, x, inverse - 1.0)
    reduced = select(x > 2.0 ** (f.mantissa + 3), m - 1.0, reduced)  # 2^−k may underflow
    result = log_reduced(reduced, k.to_float())
    return log_special(x, -1.0, result).copysign(x)  # −0.0


def tanh(x: Value) -> Value:
    a = abs(x)
    if has_tables(x):
        return tanh_by_pieces(a).copysign(x)
    a = select(a > TANH_ONE[x.format], TANH_ONE[x.format], a)
    return (tanh_f32(a) if x.format is F32 else tanh_f64(a)).copysign(x)


def tanh_by_pieces(a: Value) -> Value:
    """One of 16 polynomials in the distance from the middle of its interval.

    The intervals grow with a: TANH_SCALE·a + ½ is between ½ and 8, four octaves, and each has four of them, which the
    last two bits of the exponent and the first two of the mantissa tell apart.
    """
    a = select(a > c.TANH_LIMIT, c.TANH_LIMIT, a)
    piece = fma(c.TANH_SCALE, a, 0.5).bits() >> (F32.mantissa - 2)
    w = a - piece.lookup("tanh_middle")
    orders = range(len(c.TANH_PIECES_F32))
    result = piece.lookup(f"tanh{orders[-1]}")
    for order in reversed(orders[:-1]):
        result = fma(result, w, piece.lookup(f"tanh{order}"))
    return result


def tanh_f32(a: Value) -> Value:
    """(e − 1)/(e + 1) but for the sign, e = exp(−2a) = s + s·p, s a power of two; the two sums round once each.

    For small a there is s = 1, and the numerator is p, which is exp(−2a) − 1 to its last digits. One number for ln 2
    is enough: it is 2^-29 off, times n, and e falls faster than n grows.
    """
    n, exponent = nearest(a, -2 * LOG2E[F32][0], F32.bias)
    r = fma(-math.log(2), n, -(a + a))
    p = fma(r * r, horner(r, EXP[F32]), r)
    s = power_of_two(exponent)
    return fma(s, p, s - 1.0) / fma(s, p, s + 1.0)


def tanh_f64(a: Value) -> Value:
    """a + a·z·p(z), z = a², below TANH_SPLIT, where tanh is ½; 1 − 2/(exp(2a) + 1) above."""
    z = a * a
    small = fma(a * z, horner(z, c.TANH_F64), a)
    twice = a + a
    n, exponent = nearest(twice, LOG2E[F64][0], F64.bias)
    p = exp_reduced(reduce_ln2(twice, n))
    large = 1.0 - 2.0 / fma(power_of_two(exponent), p, 1.0)
    return select(a < c.TANH_SPLIT, small, large)


def sigmoid(x: Value) -> Value:
    """1/(1 + exp(−x)), through e = exp(−|x|): right to the smallest subnormal.

    exp's error doubles where the result is just below a power of two, so the quotient gets one
    correction, by the remainder of the division by the exact 1 + e. The quotient is between half the
    numerator and the numerator, so their difference is exact.
    """
    e = exp_from_steps(-abs(x), precise=True) if has_tables(x) else exp(-abs(x))
    numerator = select(x < 0.0, e, 1.0)
    quotient = numerator / (e + 1.0)
    remainder = fma(-quotient, e, numerator - quotient)
    return fma(remainder, fma(-0.5, e, 1.0), quotient)  # 1 − e/2 is about 1/(1 + e)


def erf(x: Value) -> Value:
    """x + x·p(x²) below ERF_SPLIT, 1 − exp(−q(|x|)) above."""
    f = x.format
    a = abs(x)
    small = fma(x, horner(x * x, ERF_SMALL[f]), x)
    u = select(a > ERF_ONE[f], ERF_ONE[f], a) - c.ERF_SPLIT
    g = horner(u, ERF_LARGE[f])
    n, exponent = nearest(g, -LOG2E[f][0], f.bias)
    e = exp_reduced(reduce_ln2(-g, n))
    large = fma(power_of_two(exponent), -e, 1.0).copysign(x)
    return select(a < c.ERF_SPLIT, small, large)


def sqrt(x: Value) -> Value:
    return x.sqrt()


# -- trigonometry ---------------------------------------------------------------------------------
def sin(x: Value) -> Value:
    if x.format is F64:
        return x.sin()
    return select(x.equals(0.0), x, sin_f32(x, 0))  # −0.0


def cos(x: Value) -> Value:
    return x.cos() if x.format is F64 else sin_f32(x, 1)


def by_quadrant(quadrant: Value, sine: Value, cosine: Value) -> Value:
    """sin(r + quadrant·π/2) from sin r and cos r."""
    chosen = select((quadrant & 1).equals(0), sine, cosine)
    return (chosen.bits() ^ ((quadrant >> 1) << 63)).from_bits()


def sin_f32(x: Value, quarter_turns: int) -> Value:
    """sin(x + quarter_turns·π/2) in float64, for every finite float32."""
    y = x.to_f64()
    # A huge x is replaced by one that differs by whole turns: TURN_BANDS, in fit_vecmath.
    a = abs(y)
    unit, first, second = y.constant(1.0), y.constant(1.0), y.constant(0.0)
    for start, inverse, high, low in c.TURN_BANDS:
        huge = a >= start
        unit, first, second = (
            select(huge, new, old)
            for new, old in ((inverse, unit), (high, first), (low, second))
        )
    steps = y * unit
    angle = steps * first
    rest = fma(steps, second, fma(steps, first, -angle))
    # Cody and Waite; the first fma is exact, for its result is a multiple of 2^-53 below 1.
    n, quadrant = nearest(angle, 2 / math.pi)
    r = fma(-c.HALF_PI[1], n, fma(-c.HALF_PI[0], n, angle)) + rest
    z = r * r
    sine = fma(r * z, horner(z, c.SIN_F32), r)
    cosine = fma(z * z, horner(z, c.COS_F32), fma(-0.5, z, 1.0))
    return by_quadrant(quadrant + quarter_turns, sine, cosine).to_f32()


# -- powers ---------------------------------------------------------------------------------------
def pow(x: Value, y: Value) -> Value:
    """C99's pow: float32 as 2^(y·log2|x|) in float64, float64 by the platform's libm."""
    return pow_f32(x.to_f64(), y.to_f64()).to_f32() if x.format is F32 else x.pow(y)


def pow_f32(x: Value, y: Value) -> Value:
    """x^y for float32 numbers held in float64: no subnormals, no overflow before the end."""
    a = abs(x)
    k, m = split_exponent(a, math.sqrt(0.5))
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    log2 = fma(s, fma(z, horner(z, c.POW_LOG2), 2 * LOG2E[F64][0]), k.to_float())
    log2 = select(a < math.inf, log2, a)
    log2 = select(a.equals(0.0), -math.inf, log2)
    t = select(log2.equals(0.0), 0.0, log2 * y)  # 1^y = 1 for y = ±inf, NaN too
    t = clamp(t, -200.0, 200.0)
    n, exponent = nearest(t, 1.0, F64.bias)
    result = fma(horner(t - n, c.POW_EXP2), t - n, 1.0) * power_of_two(exponent)
    return pow_special(x, y, result)


def pow_special(x: Value, y: Value, result: Value) -> Value:
    """The sign of an odd power; NaN for a negative base and no integer exponent; x^0 = 1."""
    half = y * 0.5
    whole = y.rint().equals(y)
    odd = whole & ~half.rint().equals(half)
    result = select(odd & (x.bits() < 0), -result, result)
    result = select((x < 0.0) & (x > -math.inf) & ~whole, math.nan, result)
    return select(y.equals(0.0), 1.0, result)
