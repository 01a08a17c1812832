"""PyTorch's state dicts into compiled models: by name, from mappings and files, and what does not fit."""

import numpy as np
import pytest

import graphc as gc
from graphc.errors import ArtifactError, InputError
from graphc.interop import load_torch_state_dict

torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch")


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True)
        self.out = torch.nn.Linear(8, 2)

    def forward(self, x):
        return self.out(self.encoder(x)[0])


@gc.model
def net(x: gc.f32["B", "T", 3]):
    hs, _ = gc.nn.lstm(x, 4, name="encoder", layers=2, bidirectional=True, layout="torch")
    return gc.outputs(y=gc.nn.linear(hs, 2, name="out"))


@gc.model
def one(x: gc.f32["B", "T", 3]):
    hs, _ = gc.nn.gru(x, 4, name="g", layout="torch")
    return gc.outputs(y=gc.nn.linear(hs, 2, name="head"))


@pytest.fixture
def module():
    torch.manual_seed(0)
    return Net()


def agrees(m, module):
    x = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(m.forward(x)["y"], module(torch.tensor(x)).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["state dict", "arrays", "float64", "bfloat16", ".pt", ".safetensors"])
def test_a_whole_model_by_name(module, form, tmp_path):
    source = module.state_dict()
    if form == "arrays":
        source = {k: v.numpy() for k, v in source.items()}
    elif form in ("float64", "bfloat16"):
        module = module.to(getattr(torch, form))
        source = module.state_dict()
        module = module.float()
    elif form == ".pt":
        torch.save(source, tmp_path / "net.pt")
        source = tmp_path / "net.pt"
    elif form == ".safetensors":
        from safetensors.torch import save_file

        save_file(source, tmp_path / "net.safetensors")
        source = str(tmp_path / "net.safetensors")
    m = gc.compile(net)
    load_torch_state_dict(m, source)
    agrees(m, module)


def test_a_part_under_a_scope_and_other_names():
    gru, head = torch.nn.GRU(3, 4, batch_first=True), torch.nn.Linear(4, 2)
    m = gc.compile(one)
    load_torch_state_dict(m, gru.state_dict(), scope="g")
    names = {"head/W": "classifier.0.weight", "head/b": "classifier.0.bias"}
    given = {f"classifier.0.{k}": v for k, v in head.state_dict().items()}
    load_torch_state_dict(m, given, names=names, strict=False)
    agrees(m, lambda x: head(gru(x)[0]))


def error_of(call, kind=InputError):
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def test_what_does_not_fit_is_listed_and_nothing_is_changed():
    m = gc.compile(one)
    before = {k: np.array(v) for k, v in m.params.items()}
    given = {f"g.{k}": v for k, v in torch.nn.GRU(3, 4).state_dict().items()}
    del given["g.bias_hh_l0"]
    given |= {"head.weight": torch.ones(3, 4), "head.bias": torch.ones(2, dtype=torch.int64), "extra": torch.ones(1)}
    text = error_of(lambda: load_torch_state_dict(m, given))
    assert "'g/bias_hh_l0' has no 'g.bias_hh_l0'" in text
    assert "'head/W' has the shape (4, 2), 'head.weight' (3, 4)" in text
    assert "'head/b' is float32, 'head.bias' int64" in text
    assert "'extra' is no parameter of the model" in text
    text = error_of(lambda: load_torch_state_dict(m, {}, names={"head/W": "w"}, strict=False))
    assert "'head/W' has no 'w'" in text
    for name, array in before.items():
        np.testing.assert_array_equal(m.params[name], array)


def test_files_that_cannot_be_read(tmp_path):
    m = gc.compile(one)
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    assert "broken.pt cannot be read as a state dict" in error_of(
        lambda: load_torch_state_dict(m, tmp_path / "broken.pt"), ArtifactError
    )
    torch.save([1, 2], tmp_path / "list.pt")
    assert "list.pt holds list, not a state dict" in error_of(
        lambda: load_torch_state_dict(m, tmp_path / "list.pt"), ArtifactError
    )
    assert "there is no parameter file" in error_of(
        lambda: load_torch_state_dict(m, tmp_path / "none.safetensors"), ArtifactError
    )
