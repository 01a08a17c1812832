"""The work of a stage grows no faster than the number of layers."""
from __future__ import annotations

import cProfile
import pstats

import pytest

import graphc as gc
from graphc.frontend.model import trace_models
from graphc.graph.dtype import f32
from graphc.pipeline import lower, program_graph


def gradient(layers):
    """The gradient graph of equal layers, its derivative not yet taken."""

    @gc.model
    def deep(x: gc.f32["B", 64]):
        h = x
        for i in range(layers):
            h = gc.relu(gc.nn.linear(h, 64, name=f"layer{i}"))
        return gc.outputs(loss=gc.mean(h * h))

    return program_graph(trace_models([deep], "deep", f32, {}, None), "deep", "gradient")


def calls(graph, stage):
    """How many calls of functions it takes from the traced graph to the end of a stage."""
    profile = cProfile.Profile()
    profile.enable()
    lower(graph, stop_after=stage)
    profile.disable()
    return pstats.Stats(profile).total_calls


@pytest.mark.parametrize("stage", ["stabilise", "differentiate", "optimise", None], ids=str)
def test_work_is_linear_in_the_layers(stage):
    calls(gradient(2), stage)  # what is worked out once
    few, many = calls(gradient(16), stage), calls(gradient(64), stage)
    assert many < 4.4 * few  # four times the layers


def test_work_of_a_layer():
    """A guard against waste: what one more layer costs, in calls. It stands at about 6 500."""
    calls(gradient(2), "optimise")
    assert (calls(gradient(24), "optimise") - calls(gradient(8), "optimise")) / 16 < 9000
