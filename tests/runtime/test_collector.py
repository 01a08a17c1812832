"""The garbage collector is off for a while, and then as it was."""
from __future__ import annotations

import gc

import pytest

import graphc
from graphc.runtime.collector import no_collection


@pytest.fixture(autouse=True, params=[True, False], ids=["on", "off"])
def collecting(request):
    """Whether the collector is on before."""
    before = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if before else gc.disable)()


def test_it_is_off_inside_and_then_as_before(collecting):
    with no_collection():
        assert not gc.isenabled()
        with no_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled() == collecting


def test_it_is_as_before_after_an_error(collecting):
    @no_collection()
    def fails(how):
        """What is said of it."""
        assert not gc.isenabled()
        raise ValueError(how)

    for how in ("once", "twice"):
        with pytest.raises(ValueError, match=how):
            fails(how)
        assert gc.isenabled() == collecting
    assert fails.__doc__ == "What is said of it."


def test_a_model_is_compiled_without_it(collecting):
    seen = []

    @graphc.model
    def model(x: graphc.f32["B"]):
        seen.append(gc.isenabled())
        return graphc.outputs(y=graphc.exp(x))

    m = graphc.compile(model, target="numpy")
    assert seen == [False] and gc.isenabled() == collecting
    m.forward(x=[0.0])
    assert gc.isenabled() == collecting
