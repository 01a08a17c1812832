"""A computation graph: the smallest one with a backward pass worth drawing.

    L(a, b, c) = c (a + 2b)        at a = 3, b = 1, c = −2

One operation at a time, forwards:

    d = 2b    = 2
    e = a + d = 5
    L = c e   = −10

and backwards, from ∂L/∂L = 1, each step the derivative of one operation times what came from above (the chain rule):

    ∂L/∂c = e                    =  5
    ∂L/∂e = c                    = −2
    ∂L/∂a = ∂L/∂e · ∂e/∂a = c·1  = −2
    ∂L/∂d = ∂L/∂e · ∂e/∂d = c·1  = −2
    ∂L/∂b = ∂L/∂d · ∂d/∂b = c·2  = −4

L is called `loss` below, since that is the output whose gradient every other command asks for. The three numbers are
parameters, so they may be changed: `m.params["a"][...] = 4`.

    graphc render models/computation_graph.py --view joint --input a=3
    graphc explain models/computation_graph.py
    graphc compile models/computation_graph.py --stop-after differentiate
    python models/computation_graph.py
"""

import graphc as gc


@gc.model
def computation_graph():
    a, b, c = gc.param("a", init=3.0), gc.param("b", init=1.0), gc.param("c", init=-2.0)
    d = 2 * b
    e = a + d
    return gc.outputs(d=d, e=e, loss=c * e)


if __name__ == "__main__":
    outputs, gradients = gc.compile(computation_graph).value_and_grad()
    print(*(f"{name} = {value:g}" for name, value in outputs.items()), sep=", ")
    print(*(f"∂L/∂{name} = {value:g}" for name, value in gradients.items()), sep=", ")
