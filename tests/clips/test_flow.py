import math

import pytest
import torch

import mertools as mt


def spots(dx, dy, h=53, w=67):
    """A textured image moved by (dx, dy) pixels."""
    y, x = torch.meshgrid(torch.arange(float(h)), torch.arange(float(w)), indexing="ij")
    x, y = x - dx, y - dy
    image = torch.sin(x / 5) + torch.sin(y / 6 + 1) + torch.sin((x + 2 * y) / 11) + torch.sin((2 * x - y) / 9)
    return (image / 8 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("method", ["dis", "farneback"])
@pytest.mark.parametrize("kind", ["grey", "rgb", "uint8"])
def test_a_known_shift(method, kind):
    first, second = spots(0, 0), spots(1.5, -0.75)
    if kind == "rgb":
        first, second = first.expand(3, -1, -1), second.expand(3, -1, -1)
    if kind == "uint8":
        first, second = ((image[None] * 255).round().to(torch.uint8) for image in (first, second))
    flow = mt.optical_flow(first, second, method=method)
    assert flow.shape == (2, 53, 67)
    assert flow.dtype == torch.float32
    inner = flow[:, 12:-12, 12:-12].flatten(1).median(1).values
    torch.testing.assert_close(inner, torch.tensor([1.5, -0.75]), atol=0.1, rtol=0)


def test_batches():
    """As ``KeyFrames.gather`` returns them; each pair by itself."""
    first = torch.stack([spots(0, 0), spots(1, 2)])[:, None].expand(2, 3, 53, 67)
    second = torch.stack([spots(1.5, 0), spots(1, 3)])[:, None].expand(2, 3, 53, 67)
    flow = mt.optical_flow(first, second)
    assert torch.equal(flow, torch.stack([mt.optical_flow(a, b) for a, b in zip(first, second, strict=True)]))
    assert mt.optical_strain(flow).shape == (2, 53, 67)
    assert mt.optical_flow(first[:0], second[:0]).shape == (0, 2, 53, 67)
    with pytest.raises(
        ValueError, match=r"second must have the shape of first, \(2, 3, 53, 67\), got \(1, 3, 53, 67\)"
    ):
        mt.optical_flow(first, second[:1])


def test_tvl1_where_there_is_one():
    import cv2

    if hasattr(cv2, "optflow"):
        flow = mt.optical_flow(spots(0, 0), spots(1.5, 0), method="tvl1")
        assert abs(float(flow[0, 12:-12, 12:-12].median()) - 1.5) < 0.2
    else:
        with pytest.raises(ImportError, match="opencv-contrib-python-headless"):
            mt.optical_flow(spots(0, 0), spots(1, 0), method="tvl1")


@pytest.mark.parametrize(
    ("first", "second", "options", "kind", "message"),
    [
        (
            torch.rand(3, 31, 37),
            torch.rand(3, 31, 41),
            {},
            ValueError,
            r"shape of first, \(3, 31, 37\), got \(3, 31, 41\)",
        ),
        (torch.rand(2, 31, 37), torch.rand(2, 31, 37), {}, ValueError, r"with 1 or 3 channels"),
        (torch.rand(31, 37) * 255, torch.rand(31, 37), {}, ValueError, r"first must lie in \[0, 1\] when floating"),
        (torch.full((31, 37), math.nan), torch.rand(31, 37), {}, ValueError, r"first must lie in \[0, 1\]"),
        (torch.rand(31, 37).long(), torch.rand(31, 37), {}, TypeError, "uint8 or floating, got torch.int64"),
        ([1], torch.rand(31, 37), {}, TypeError, "first must be a torch.Tensor"),
        (torch.rand(7, 11), torch.rand(7, 11), {}, ValueError, "at least 16 pixels"),
        (torch.rand(31, 37), torch.rand(31, 37), {"method": "lk"}, ValueError, "method must be one of 'dis'"),
    ],
)
def test_bad_inputs_of_flow(first, second, options, kind, message):
    with pytest.raises(kind, match=message):
        mt.optical_flow(first, second, **options)


def test_strain_is_the_formula():
    flow = torch.randn(5, 2, 7, 11, dtype=torch.float64)
    u, v = flow[:, 0].numpy(), flow[:, 1].numpy()
    import numpy as np

    (u_y, u_x), (v_y, v_x) = np.gradient(u, axis=(1, 2)), np.gradient(v, axis=(1, 2))
    shear = (u_y + v_x) / 2
    expected = np.sqrt(u_x**2 + v_y**2 + shear**2 + shear**2)
    torch.testing.assert_close(mt.optical_strain(flow), torch.from_numpy(expected))


def test_strain_of_a_moving_or_turning_head_is_zero():
    y, x = torch.meshgrid(torch.arange(13.0), torch.arange(17.0), indexing="ij")
    moving = torch.stack((torch.full_like(x, 3), torch.full_like(x, -2)))
    turning = 0.02 * torch.stack((-y, x))  # to first order
    assert mt.optical_strain(torch.stack((moving, turning))).abs().max() < 1e-6


def test_strain_has_a_gradient_at_rest():
    flow = torch.zeros(2, 5, 7, requires_grad=True)
    mt.optical_strain(flow).sum().backward()
    assert torch.equal(flow.grad, torch.zeros(2, 5, 7))
    moving = torch.randn(2, 5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mt.optical_strain, moving)


@pytest.mark.parametrize("flow", [torch.rand(3, 5, 7), torch.rand(2, 1, 7), torch.rand(5, 7)])
def test_bad_shapes_of_strain(flow):
    with pytest.raises(ValueError, match=r"flow must be \(..., 2, h, w\)"):
        mt.optical_strain(flow)


def test_strain_of_integers():
    with pytest.raises(TypeError, match="flow must be floating"):
        mt.optical_strain(torch.ones(2, 5, 7, dtype=torch.uint8))
