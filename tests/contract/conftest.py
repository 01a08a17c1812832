"""Fixtures of the contract's tests."""
import pytest

XOR = '''
"""XOR."""
import graphc as gc


@gc.model
def xor(x: gc.f32["B", 2], y: gc.f32["B", 1], *, hidden: int = 2):
    h = gc.relu(gc.nn.linear(x, hidden, name="hidden"))
    y_hat = gc.nn.linear(h, 1, name="out")
    return gc.outputs(y_hat=y_hat, loss=gc.nn.mse(y_hat, y))
'''


@pytest.fixture(scope="session")
def xor_py(tmp_path_factory):
    """A model file; tests read it and leave it alone."""
    path = tmp_path_factory.mktemp("models") / "xor.py"
    path.write_text(XOR)
    return path
