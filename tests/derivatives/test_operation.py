"""What `gc.op` tells of an operation."""

import pytest

import graphc as gc


def test_a_notebook_shows_the_operation_and_its_partials():
    text = gc.op("sigmoid")._repr_latex_()
    assert text.startswith("$$") and text.endswith("$$")
    assert r"\frac{\partial y}{\partial x} &= y \left(1 - y\right)" in text
    assert gc.op("div")._repr_latex_().count(r"\partial y") == 2


def test_a_name_that_is_none_is_an_error_that_lists_them():
    with pytest.raises(gc.GraphcError, match="tanhh") as error:
        gc.op("tanhh")
    assert "tanh" in str(error.value.how)
