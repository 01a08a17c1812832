"""Time to the first result: with nothing compiled before, with caches, and for deep models of equal layers."""
# ruff: noqa: F821

from typing import Any

import numpy as np

from ..case import Case, FirstCall
from ..targets import at_most_times, same_kernels, within
from ..workload import TRANSPOSED, Arrays, Model, Shapes
from .networks import MLP_STEP

WIDTH = 64


def _other(gc: Any) -> Any:
    @gc.model
    def other(word: gc.i64["B"], y: gc.f32["B", 7]):
        h = gc.tanh(gc.nn.linear(gc.take(gc.param("e", (40, 50)), word), 30, name="hidden"))
        return gc.outputs(loss=gc.nn.mse(gc.nn.linear(h, 7, name="out"), y))

    return other


#: Another network: it shares with the first the kernels that are not of any model (products, the check of indices).
OTHER = Model(Shapes({"e": (40, 50), "hidden/W": (50, 30), "hidden/b": (30,), "out/W": (30, 7), "out/b": (7,)}),
              lambda rng, rows: {"word": rng.integers(0, 40, rows),
                                 "y": rng.standard_normal((rows, 7), np.float32)}, _other, rows=16)


def _equal_layers(layers: int) -> Model:
    """Layers of one width, each relu(x W + b), and a squared error."""
    def model(gc: Any) -> Any:
        @gc.model
        def deep(x: gc.f32["B", WIDTH], y: gc.f32["B", WIDTH]):
            for i in range(layers):
                x = gc.relu(gc.nn.linear(x, WIDTH, name=f"layer{i}"))
            return gc.outputs(loss=gc.nn.mse(x, y))

        return deep

    def in_torch(torch: Any, p: dict[str, Any], d: dict[str, Any]) -> Any:
        x = d["x"]
        for i in range(layers):
            x = torch.relu(torch.nn.functional.linear(x, p[f"layer{i}/W"], p[f"layer{i}/b"]))
        return torch.nn.functional.mse_loss(x, d["y"])

    def in_jax(jax: Any, p: dict[str, Any], d: dict[str, Any]) -> Any:
        x = d["x"]
        for i in range(layers):
            x = jax.nn.relu(x @ p[f"layer{i}/W"] + p[f"layer{i}/b"])
        return ((x - d["y"]) ** 2).mean()

    def data(rng: np.random.Generator, rows: int) -> Arrays:
        return {name: rng.standard_normal((rows, WIDTH), np.float32) for name in ("x", "y")}

    shapes = Shapes()
    for i in range(layers):
        shapes |= {f"layer{i}/W": (WIDTH, WIDTH), f"layer{i}/b": (WIDTH,)}
    return Model(Shapes(shapes), data, model, in_torch, in_jax, TRANSPOSED, rows=32)


CASES = (
    Case("compile/cold", "the network's training step, every cache empty", MLP_STEP, (within(1.5),), FirstCall()),
    Case("compile/new_model", "another model was compiled before", MLP_STEP, (within(0.5),), FirstCall("other", OTHER)),
    Case("compile/second_process", "compiled before, in another process; with imports", MLP_STEP, (within(0.7),),
         FirstCall("same")),
    Case("compile/artifact", "saved as a folder, and imported from it; with imports", MLP_STEP, (within(0.4),),
         FirstCall("saved")),
    Case("compile/4_layers", "the gradient of 4 equal layers, every cache empty", _equal_layers(4), (), FirstCall()),
    Case("compile/64_layers", "the gradient of 64 equal layers, every cache empty", _equal_layers(64),
         (same_kernels("compile/4_layers"), at_most_times("compile/4_layers", 2)), FirstCall()),
)
