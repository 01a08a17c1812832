"""One unit: a weighted sum of the inputs and a bias, put through a nonlinear function.

    z = w·x + b        y = f(z)

With the weights w = (0.2, 0.3), the bias b = 0.5 and the input x = (0.5, 0.6),

    z = 0.2·0.5 + 0.3·0.6 + 0.5 = 0.78

    f = σ       y = 1/(1 + e^−0.78)  = 0.6857      f′(z) = y(1 − y) = 0.2155
    f = tanh    y = tanh 0.78        = 0.6527      f′(z) = 1 − y²   = 0.5740
    f = ReLU    y = max(0.78, 0)     = 0.78        f′(z) = 1, since z > 0

If the answer should have been t, the loss is L = ½(y − t)², and the chain rule gives with δ = ∂L/∂z = (y − t) f′(z)

    ∂L/∂w = δ x        ∂L/∂b = δ        ∂L/∂x = δ w

The three units below are three models of one file. They share the parameters `w` and `b`, since these have the same
names and say `shared=True`; a batch of inputs has its mean loss.

    graphc render models/unit.py --model sigmoid_unit --view joint --input "x=[[0.5, 0.6]]" --input "t=[1]"
    graphc explain models/unit.py --model sigmoid_unit --wrt w
    python models/unit.py
"""

import graphc as gc


def unit(x, t, f):
    """What the three models have in common; f is the function that the unit ends in."""
    w = gc.param("w", (2,), init=[0.2, 0.3], shared=True)
    b = gc.param("b", init=0.5, shared=True)
    z = x @ w + b
    y = f(z)
    return gc.outputs(z=z, y=y, loss=gc.mean(0.5 * gc.square(y - t)))


@gc.model
def sigmoid_unit(x: gc.f32["B", 2], t: gc.f32["B"]):
    return unit(x, t, gc.sigmoid)


@gc.model
def tanh_unit(x: gc.f32["B", 2], t: gc.f32["B"]):
    return unit(x, t, gc.tanh)


@gc.model
def relu_unit(x: gc.f32["B", 2], t: gc.f32["B"]):
    return unit(x, t, gc.relu)


if __name__ == "__main__":
    m = gc.compile(sigmoid_unit, tanh_unit, relu_unit)
    for one in (m.sigmoid_unit, m.tanh_unit, m.relu_unit):
        outputs, gradients = one.value_and_grad(x=[[0.5, 0.6]], t=[1.0])
        numbers = {**outputs, **{f"∂L/∂{name}": gradient for name, gradient in gradients.items()}}
        shown = (f"{name} = {', '.join(f'{v:.4f}' for v in value.ravel())}" for name, value in numbers.items())
        print(f"{one.name:12}", *shown, sep="   ")
