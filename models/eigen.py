"""Why gradients vanish and explode: h_t = Wᵗ h_0, a recurrent network with everything else left out.

    h_t = W h_{t−1}        so h_t = Wᵗ h_0

If v is an eigenvector of W with the eigenvalue λ, then Wᵗ v = λᵗ v. So write h_0 as a sum of eigenvectors: each part
grows or decays by its own λᵗ. Here

    W = │1.0  0.2│    λ₁ = 1.1 with v₁ = (2, 1)      1.1⁵⁰ = 117
        │0.2  0.7│    λ₂ = 0.6 with v₂ = (1, −2)     0.6⁵⁰ = 0.000 000 000 008

and after a while only the direction of the largest eigenvalue is left. The way back is the same: with L = ½|h_T|²,

    ∂L/∂h_0 = (Wᵀ)ᵀ h_T        T factors of Wᵀ (and T, the number of steps, stands above)

so over many steps a gradient vanishes where all |λ| < 1, and explodes where one is above 1. That is what LSTM and GRU
were made against.

The loop is a Python loop: it is unrolled while the model is traced, to as many steps as `--set steps=50` says.

    python models/eigen.py                                  draw growth and decay into eigen.png
    graphc render models/eigen.py --set steps=4
    graphc explain models/eigen.py --set steps=3 --wrt W
"""

import graphc as gc


@gc.model
def eigen(h0: gc.f32[2], *, steps: int = 10):
    W = gc.param("W", (2, 2), init=[[1.0, 0.2], [0.2, 0.7]])
    hs = [h0]
    for _ in range(steps):
        hs.append(W @ hs[-1])
    loss = 0.5 * gc.sum(gc.square(hs[-1]))
    return gc.outputs(h=gc.stack(hs), loss=loss, h0_slope=gc.grad(loss, h0))


def plot(file="eigen.png", steps=30):
    """Draw |h_t| for the two eigenvectors, and for one vector between them."""
    import numpy as np
    from matplotlib.figure import Figure

    # in float32 the rounding errors of v₂'s path have a part along v₁, which grows and is seen after 28 steps
    m = gc.compile(eigen, steps=steps, dtype="float64")
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for label, h0, style in (
        ("v₁, λ = 1.1", (2, 1), dict(color="#0072B2", linestyle="-")),
        ("v₂, λ = 0.6", (1, -2), dict(color="#D55E00", linestyle="--")),
        ("(0, 1)", (0, 1), dict(color="#555555", linestyle=":")),
    ):
        hs = m.forward(np.array(h0) / np.linalg.norm(h0))["h"]
        axes.semilogy(np.linalg.norm(hs, axis=1), label=label, **style)
    axes.set(xlabel="t", ylabel="|h_t|")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, title="h_0")
    figure.savefig(file, dpi=150)
    print(f"growth and decay are drawn in {file}")


if __name__ == "__main__":
    plot()
