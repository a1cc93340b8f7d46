import pytest
import torch
import torch.nn.functional as F

from mertools.retention import projection
from mertools.retention.projection import Projection, project


@pytest.fixture(params=[1, 10**9], ids=["oneDNN", "MKL"])
def rows(request, monkeypatch):
    monkeypatch.setattr(projection, "_MANY_ROWS", request.param)
    return request.param


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 7), (2, 0, 7)])
def test_is_a_linear_layer(rows, shape):
    x, weight = torch.randn(shape, requires_grad=True), torch.randn(11, 7, requires_grad=True)
    y = project(x, weight)
    torch.testing.assert_close(y, F.linear(x, weight))
    got, expected = (torch.autograd.grad(out.square().sum(), [x, weight]) for out in (y, F.linear(x, weight)))
    torch.testing.assert_close(got, expected)


def test_any_layout(rows):
    weight = torch.randn(11, 7)
    for x in (torch.randn(7, 5).mT, torch.randn(4, 6, 7)[:, ::2], torch.randn(1, 7).expand(5, 7)):
        torch.testing.assert_close(project(x, weight), F.linear(x, weight))


def test_second_derivatives(rows, monkeypatch):
    weight = torch.randn(3, 5)
    x = torch.randn(4, 5, requires_grad=True)
    (grad,) = torch.autograd.grad(project(x, weight).pow(3).sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad(F.linear(x, weight).pow(3).sum(), x, create_graph=True)
    torch.testing.assert_close(
        torch.autograd.grad(grad.square().sum(), x), torch.autograd.grad(expected.square().sum(), x)
    )


def test_the_fast_way_is_taken_for_many_rows_only(monkeypatch):
    taken = []
    conv = F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda *args: taken.append(args[0].shape) or conv(*args))
    layer = Projection(8, 6)
    layer(torch.randn(1023, 8))
    layer.double()(torch.randn(2048, 8, dtype=torch.float64))
    assert taken == []
    layer.float()(torch.randn(4, 256, 8))
    assert taken == [(1, 8, 1, 1024)]


def test_vmap_and_autocast(rows):
    x, weight = torch.randn(3, 5, 7), torch.randn(3, 11, 7)
    torch.testing.assert_close(torch.func.vmap(project)(x, weight), x @ weight.mT)
    with torch.autocast("cpu", torch.bfloat16):
        assert project(x, weight[0]).dtype == torch.bfloat16


def test_is_seen_as_a_linear_layer():
    layer = Projection(8, 6)
    assert isinstance(layer, torch.nn.Linear)
    assert list(layer.state_dict()) == ["weight"]
    seen = []
    layer.register_forward_hook(lambda *_: seen.append(1))
    layer(torch.randn(2000, 8))
    assert seen == [1]
