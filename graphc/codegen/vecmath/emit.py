"""Scalar LLVM IR written as arithmetic: `Value` is one lane of what becomes a vector register.

The functions of vecmath are straight-line formulas over `Value`.  The loop vectoriser widens each
instruction used here to AVX2, AVX-512 or Neon: no branches, no calls but LLVM's own intrinsics.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llvmlite import ir

from . import lanes

Operand: TypeAlias = "Value | float"


@dataclass(frozen=True)
class Format:
    """An IEEE binary format and the integers of the same width."""

    name: str
    type: Any
    bits: Any
    mantissa: int
    bias: int

    @property
    def min_normal(self) -> float:
        return 2.0 ** (1 - self.bias)

    @property
    def shift(self) -> float:
        """1.5·2^mantissa: x + shift − shift rounds x to an integer, which sits in the low bits."""
        return 1.5 * 2.0**self.mantissa


F32 = Format("f32", ir.FloatType(), ir.IntType(32), 23, 127)
F64 = Format("f64", ir.DoubleType(), ir.IntType(64), 52, 1023)


@dataclass(frozen=True, eq=False)
class Value:
    """An LLVM value with Python's operators; numbers beside it take its type."""

    builder: Any
    ir: Any
    format: Format

    # -- helpers ------------------------------------------------------------------------------
    @property
    def is_float(self) -> bool:
        return self.ir.type == self.format.type

    def constant(self, number: float) -> Value:
        value = float(number) if self.is_float else int(number)
        return self._new(ir.Constant(self.ir.type, value))

    def _new(self, instruction: Any) -> Value:
        return Value(self.builder, instruction, self.format)

    def _lift(self, other: Operand) -> Value:
        return other if isinstance(other, Value) else self.constant(other)

    def _binary(self, floating: str, integer: str, left: Operand, right: Operand) -> Value:
        build = getattr(self.builder, floating if self.is_float else integer)
        return self._new(build(self._lift(left).ir, self._lift(right).ir))

    # -- arithmetic ---------------------------------------------------------------------------
    def __add__(self, other: Operand) -> Value:
        return self._binary("fadd", "add", self, other)

    def __sub__(self, other: Operand) -> Value:
        return self._binary("fsub", "sub", self, other)

    def __rsub__(self, other: Operand) -> Value:
        return self._binary("fsub", "sub", other, self)

    def __mul__(self, other: Operand) -> Value:
        return self._binary("fmul", "mul", self, other)

    def __truediv__(self, other: Operand) -> Value:
        return self._binary("fdiv", "sdiv", self, other)

    def __rtruediv__(self, other: Operand) -> Value:
        return self._binary("fdiv", "sdiv", other, self)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Value:
        return self._new(self.builder.fneg(self.ir) if self.is_float else self.builder.neg(self.ir))

    def negated(self) -> Value | None:
        """y, if this was made as −y: by `-`, or by Numba, which subtracts from −0.0."""
        match getattr(self.ir, "opname", ""), getattr(self.ir, "operands", ()):
            case "fneg", [y]:
                return self._new(y)
            case "fsub", [ir.Constant(constant=float(zero)), y] if zero == 0 and math.copysign(1, zero) < 0:
                return self._new(y)
        return None

    def __abs__(self) -> Value:
        return self._call("llvm.fabs", self)

    # -- integers -----------------------------------------------------------------------------
    def __and__(self, other: Operand) -> Value:
        return self._new(self.builder.and_(self.ir, self._lift(other).ir))

    def __or__(self, other: Operand) -> Value:
        return self._new(self.builder.or_(self.ir, self._lift(other).ir))

    def __xor__(self, other: Operand) -> Value:
        return self._new(self.builder.xor(self.ir, self._lift(other).ir))

    def __invert__(self) -> Value:
        return self ^ -1

    def __lshift__(self, count: int) -> Value:
        return self._new(self.builder.shl(self.ir, self.constant(count).ir))

    def __rshift__(self, count: int) -> Value:
        """Arithmetic: keeps the sign."""
        return self._new(self.builder.ashr(self.ir, self.constant(count).ir))

    def bits(self) -> Value:
        """The integer with the same bits."""
        return self._new(self.builder.bitcast(self.ir, self.format.bits))

    def from_bits(self) -> Value:
        """The float with the same bits."""
        return self._new(self.builder.bitcast(self.ir, self.format.type))

    # -- comparisons: a NaN compares false ----------------------------------------------------
    def _compare(self, operator: str, other: Operand) -> Value:
        build = self.builder.fcmp_ordered if self.is_float else self.builder.icmp_signed
        return self._new(build(operator, self.ir, self._lift(other).ir))

    def __lt__(self, other: Operand) -> Value:
        return self._compare("<", other)

    def __le__(self, other: Operand) -> Value:
        return self._compare("<=", other)

    def __gt__(self, other: Operand) -> Value:
        return self._compare(">", other)

    def __ge__(self, other: Operand) -> Value:
        return self._compare(">=", other)

    def equals(self, other: Operand) -> Value:
        return self._compare("==", other)

    # -- calls of intrinsics ------------------------------------------------------------------
    def _call(self, name: str, *arguments: Value) -> Value:
        module = self.builder.module
        types = [a.ir.type for a in arguments]
        function = module.declare_intrinsic(name, [types[0]], ir.FunctionType(types[0], types))
        return self._new(self.builder.call(function, [a.ir for a in arguments]))

    def sqrt(self) -> Value:
        return self._call("llvm.sqrt", self)

    def pow(self, y: Value) -> Value:
        """The platform's libm, one lane at a time."""
        return self._call("llvm.pow", self, y)

    def sin(self) -> Value:
        """The platform's libm, one lane at a time."""
        return self._call("llvm.sin", self)

    def cos(self) -> Value:
        """The platform's libm, one lane at a time."""
        return self._call("llvm.cos", self)

    def rint(self) -> Value:
        return self._call("llvm.rint", self)

    def copysign(self, sign: Value) -> Value:
        return self._call("llvm.copysign", self, sign)

    def ldexp(self, n: Value) -> Value:
        """self·2^n for an integer n: one instruction of AVX-512, a call of libm for each lane elsewhere."""
        power = n.ir if self.format is F32 else self.builder.trunc(n.ir, F32.bits)
        types = [self.ir.type, power.type]
        function = self.builder.module.declare_intrinsic("llvm.ldexp", types, ir.FunctionType(types[0], types))
        return self._new(self.builder.call(function, [self.ir, power]))

    # -- words of AVX-512 ---------------------------------------------------------------------
    def lookup(self, table: str) -> Value:
        """The number of a table of `lanes` that the low four bits of this integer choose. float32, AVX-512."""
        return self._word(table, self)

    def scalef(self, n: Value) -> Value:
        """self·2^⌊n⌋ for a float n. float32, AVX-512."""
        return self._word(lanes.SCALEF, self, n)

    def _word(self, word: str, *arguments: Value) -> Value:
        module, name = self.builder.module, lanes.PREFIX + word
        kind = ir.FunctionType(F32.type, [a.ir.type for a in arguments])
        function = module.globals.get(name) or ir.Function(module, kind, name)
        return self._new(self.builder.call(function, [a.ir for a in arguments]))

    # -- conversions --------------------------------------------------------------------------
    def to_f64(self) -> Value:
        return Value(self.builder, self.builder.fpext(self.ir, F64.type), F64)

    def to_f32(self) -> Value:
        return Value(self.builder, self.builder.fptrunc(self.ir, F32.type), F32)

    def to_float(self) -> Value:
        """A small integer as a float of the same width."""
        if self.format is F32:
            return self._new(self.builder.sitofp(self.ir, self.format.type))
        # Through the low bits of a large float: the 64-bit conversion needs AVX-512.
        shift = self.format.shift
        return (self + bits_of(self.format, shift)).from_bits() - shift


def bits_of(format: Format, number: float) -> int:
    """The integer with the bits of `number` in `format`."""
    code, back = ("<f", "<i") if format is F32 else ("<d", "<q")
    (integer,) = struct.unpack(back, struct.pack(code, number))
    return int(integer)


def fma(a: Operand, b: Value, c: Operand) -> Value:
    """a·b + c, rounded once."""
    return b._call("llvm.fma", b._lift(a), b, b._lift(c))


def select(condition: Value, then: Operand, otherwise: Operand) -> Value:
    value = then if isinstance(then, Value) else otherwise
    assert isinstance(value, Value)
    chosen = value.builder.select(condition.ir, value._lift(then).ir, value._lift(otherwise).ir)
    return value._new(chosen)


def horner(x: Value, coefficients: Sequence[float]) -> Value:
    """Σ cᵢ·xⁱ, even and odd terms apart: e(x²) + x·o(x²) makes the chain of fmas half as long."""
    if len(coefficients) < 4:
        return _chain(x, coefficients)
    square = x * x
    return fma(_chain(square, coefficients[1::2]), x, _chain(square, coefficients[::2]))


def _chain(x: Value, coefficients: Sequence[float]) -> Value:
    result = x.constant(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        result = fma(result, x, c)
    return result
