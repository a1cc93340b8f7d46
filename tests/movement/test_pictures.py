import pytest
import torch

from mertools.movement.pictures import _blur, blurred, small_frames


@pytest.mark.parametrize("shape", [(3, 224, 224), (3, 360, 640), (1, 650, 960), (3, 37, 41), (4, 128, 100)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_small_frames_are_means_and_do_not_depend_on_the_cut(shape, dtype):
    clip = torch.randint(0, 256, (11, *shape), generator=torch.Generator().manual_seed(0)).to(dtype)
    small = small_frames(clip)
    assert torch.equal(small, torch.cat([small_frames(part) for part in torch.split(clip, 3)]))
    assert max(small.shape[1:]) <= 1.25 * 168
    side = min(shape[1:])
    h, w = shape[1:]
    if max(h, w) > 1.25 * side:
        clip = clip[..., (h - side) // 2 : (h + side) // 2, (w - side) // 2 : (w + side) // 2]
    factor = clip.shape[2] // small.shape[1]
    expected = clip[..., :factor, :factor].double().mean((1, 2, 3))
    torch.testing.assert_close(small[:, 0, 0].double(), expected, rtol=1e-5, atol=1e-4)


def test_the_blur_of_opencv_is_that_of_the_matrices():
    """Elsewhere than on the CPU the frames are blurred by matrix products."""
    small = torch.rand(5, 40, 56, generator=torch.Generator().manual_seed(0)) * 255
    frames, half, _ = blurred(small)
    torch.testing.assert_close(frames, _blur(40, small) @ small @ _blur(56, small).mT, rtol=1e-5, atol=1e-3)
    assert half.shape == (5, 20, 28)
    assert half.mean().item() == pytest.approx(0, abs=1e-3)
    assert half.std(unbiased=False).item() == pytest.approx(50, abs=1e-2)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_frames_are_levelled_whatever_their_range(size):
    small = torch.rand(4, 48, 48, generator=torch.Generator().manual_seed(0)) * size
    torch.testing.assert_close(blurred(small)[1], blurred(small / size)[1], rtol=1e-3, atol=1e-2)
