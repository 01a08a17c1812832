"""What the operators of tensors give."""

import numpy as np
import pytest

import graphc as gc


@pytest.mark.parametrize("exponent", range(8))
@pytest.mark.parametrize("values", [np.array([-3, 0, 1, 2]), np.array([True, False])], ids=["i64", "bool"])
def test_natural_powers_of_integers_are_integers(values, exponent):
    @gc.model
    def powers(i: gc.i64["N"] if values.dtype != bool else gc.bool_["N"]):
        return gc.outputs(y=i**exponent)

    y = gc.compile(powers).forward(i=values)["y"]
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y, values.astype(int) ** exponent)


def test_other_powers_of_integers_are_not():
    @gc.model
    def powers(i: gc.i64["N"]):
        return gc.outputs(root=i**0.5, inverse=i**-1)

    got = gc.compile(powers).forward(i=np.array([1, 4]))
    assert got["root"].dtype == got["inverse"].dtype == np.float32
    np.testing.assert_allclose(got["root"], [1, 2])
    np.testing.assert_allclose(got["inverse"], [1, 0.25])
