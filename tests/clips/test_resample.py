import numpy as np
import pytest
import torch

import mertools as mt
from mertools.clips.resample import resample_weights

MODES = ["nearest", "linear", "cubic", "tim"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("t", "n"), [(7, 13), (13, 5), (11, 11), (2, 7), (3, 5), (5, 1), (1, 3)])
def test_shape_ends_and_weights(mode, t, n):
    clip = torch.rand(t, 3, 5, 2, dtype=torch.float64)
    out = mt.resample_clip(clip, n, mode=mode)
    assert out.shape == (n, 3, 5, 2)
    if n > 1:
        torch.testing.assert_close(out[0], clip[0])
        torch.testing.assert_close(out[-1], clip[-1])
    torch.testing.assert_close(resample_weights(t, n, mode).sum(1), torch.ones(n, dtype=torch.float64))


@pytest.mark.parametrize("mode", MODES)
def test_old_frames_are_hit(mode):
    clip = torch.rand(7, 5, dtype=torch.float64)
    torch.testing.assert_close(mt.resample_clip(clip, 19, mode=mode)[::3], clip)


def test_linear_against_numpy():
    clip = torch.rand(7, 3, dtype=torch.float64)
    place = np.linspace(0, 6, 11)
    expected = np.stack([np.interp(place, range(7), clip[:, i]) for i in range(3)], 1)
    np.testing.assert_allclose(mt.resample_clip(clip, 11, mode="linear"), expected, atol=1e-12)


def test_cubic_against_scipy():
    from scipy.interpolate import CubicSpline

    clip = torch.rand(7, 3, dtype=torch.float64)
    expected = CubicSpline(range(7), clip.numpy())(np.linspace(0, 6, 11))
    np.testing.assert_allclose(mt.resample_clip(clip, 11, mode="cubic"), expected, atol=1e-12)


def tim_as_published(clip, n):
    """Graph embedding, singular value decomposition and curve, step by step (Zhou et al., 2011)."""
    t = len(clip)
    adjacency = np.diag(np.ones(t - 1), 1) + np.diag(np.ones(t - 1), -1)
    laplacian = np.diag(adjacency.sum(0)) - adjacency
    x = clip.reshape(t, -1).numpy().T
    mean = x.mean(1, keepdims=True)
    u, s, v = np.linalg.svd(x - mean, full_matrices=False)
    u, q = u[:, : t - 1], np.diag(s[: t - 1]) @ v[: t - 1]
    _, w = np.linalg.eig(np.linalg.solve(q @ q.T, q @ laplacian @ q.T))
    order = np.argsort(np.linalg.eigvals(np.linalg.solve(q @ q.T, q @ laplacian @ q.T)).real)
    w = w[:, order].real
    y = w.T @ q  # rows are the eigenvectors of the Laplacian, up to scale
    k = np.arange(1, t)
    scale = y[:, 0] / np.sin(np.pi * k / t + np.pi * (t - k) / (2 * t))
    place = np.linspace(1 / t, 1, n)
    curve = np.sin(np.pi * k[:, None] * place + np.pi * (t - k[:, None]) / (2 * t)) * scale[:, None]
    return torch.from_numpy((u @ np.linalg.solve(w.T, curve) + mean).T.reshape(n, *clip.shape[1:]))


@pytest.mark.parametrize(("t", "n"), [(5, 11), (11, 7), (7, 23)])
def test_tim_against_the_published_procedure(t, n):
    clip = torch.rand(t, 3, 13, dtype=torch.float64)
    torch.testing.assert_close(mt.resample_clip(clip, n, mode="tim"), tim_as_published(clip, n), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("mode", MODES)
def test_bytes_stay_bytes(mode):
    clip = torch.tensor([0, 255, 0, 255, 255], dtype=torch.uint8).view(5, 1)
    out = mt.resample_clip(clip, 17, mode=mode)
    assert out.dtype == torch.uint8
    exact = mt.resample_clip(clip.double(), 17, mode=mode)
    torch.testing.assert_close(out.double(), exact.round().clamp(0, 255), atol=1, rtol=0)
    if mode == "cubic":
        assert exact.max() > 255


def test_nearest_takes_frames_as_they_are():
    clip = torch.tensor([3, 5, 7, 11], dtype=torch.uint8)
    assert mt.resample_clip(clip, 2, mode="nearest").tolist() == [3, 11]
    assert mt.resample_clip(clip, 7, mode="nearest").tolist() == [3, 3, 5, 5, 7, 7, 11]


@pytest.mark.parametrize(
    ("clip", "n", "mode", "kind", "message"),
    [
        ([1], 3, "linear", TypeError, "clip must be a torch.Tensor"),
        (torch.arange(5), 3, "linear", TypeError, "uint8 or floating"),
        (torch.rand(0, 5), 3, "linear", ValueError, "at least one frame"),
        (torch.rand(5), 0, "linear", ValueError, "num_frames must be a positive integer"),
        (torch.rand(5), 3, "spline", ValueError, "mode must be one of 'nearest'"),
    ],
)
def test_bad_inputs(clip, n, mode, kind, message):
    with pytest.raises(kind, match=message):
        mt.resample_clip(clip, n, mode=mode)
