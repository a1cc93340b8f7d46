"""The benchmarks' baseline meets the fixtures that the library meets, and both compute from the same weights."""

import cv2
import numpy as np
import pytest
import torch

import mertools as mt
from benchmarks import plain

FUSIONS = ("parallel", "s_to_t", "t_to_s", "early")


def assert_met(got, expected):
    """To 1e-4, relative to the largest value of the entry."""
    assert got.shape == expected.shape
    assert float((got.detach() - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_logits_are_the_published_ones(parity, fusion):
    network = "tsfmicro" if fusion == "parallel" else fusion
    model = plain.load_used(plain.PlainTSFmicro(5, fusion=fusion), parity.state_dict(network)).eval()
    onset, apex = parity.image("onset"), parity.image("apex")
    assert_met(model(onset, apex - onset), parity.expected(f"{network}.logits0"))


@torch.no_grad()
def test_both_branches_are_the_published_ones(parity):
    net = plain.load_used(plain.PlainTSFmicro(5), parity.state_dict("gamdss")).eval()
    front, back = plain.PlainTwoBranch(net)(*(parity.image(name) for name in ("onset", "apex", "offset")))
    assert_met(front, parity.expected("gamdss.logits0"))
    assert_met(back, parity.expected("gamdss.logits1"))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_weights_load_both_ways(fusion):
    ours = mt.TSFmicro(5, fusion=fusion)
    theirs = plain.load_used(plain.PlainTSFmicro(5, fusion=fusion), plain.published_state_dict(ours))
    again = mt.load_published(mt.TSFmicro(5, fusion=fusion), theirs.state_dict())
    for (name, a), b in zip(ours.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_missing_weight_is_an_error():
    weights = plain.published_state_dict(mt.TSFmicro(5))
    del weights["main_branch.norm.running_var"]
    with pytest.raises(ValueError, match="state_dict lacks main_branch.norm.running_var"):
        plain.load_used(plain.PlainTSFmicro(5), weights)


@pytest.mark.slow
def test_a_training_step_is_the_same():
    """Loss and every gradient, of both branches, without drop path."""
    ours = mt.TwoBranch(mt.TSFmicro(5, drop_path=0.0))
    theirs = plain.PlainTwoBranch(plain.PlainTSFmicro(5, drop_path=0.0))
    plain.load_used(theirs.net, plain.published_state_dict(ours.net))
    frames = [torch.randn(2, 3, 224, 224) for _ in range(3)]
    target = torch.tensor([1, 3])
    for model in (ours, theirs):
        front, back = model(*frames)
        (torch.nn.functional.cross_entropy(front, target) + torch.nn.functional.cross_entropy(back, target)).backward()
    wanted = mt.TSFmicro(5)  # the baseline's gradients under the library's names
    mt.load_published(wanted, theirs.net.state_dict() | {name: p.grad for name, p in theirs.net.named_parameters()})
    largest = max(float(p.grad.abs().max()) for p in ours.parameters())
    for (name, p), q in zip(ours.net.named_parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.detach(), atol=1e-4 * largest, rtol=1e-3, msg=name)


def test_loss_is_the_papers():
    g = torch.Generator().manual_seed(0)
    logits, au_logits = torch.randn(5, 7, generator=g), torch.randn(5, 18, generator=g)
    target, au = torch.tensor([0, 3, 6, 2, 2]), torch.randint(0, 2, (5, 18), generator=g).float()
    weight = mt.au_pos_weight()
    got = plain.au_prior_loss(logits, target, au_logits, au, mt.au_prior().tolist(), weight)
    torch.testing.assert_close(got, mt.AUPriorLoss(pos_weight=weight)(logits, target, au_logits, au))


def test_search_finds_what_the_library_finds(tmp_path):
    clip = mt.synthetic_clip(num_frames=60, onset=12, apex=30, offset=48, size=64, noise=2).frames
    for i, frame in enumerate(clip):
        cv2.imwrite(str(tmp_path / f"{i:03d}.png"), np.ascontiguousarray(frame.permute(1, 2, 0).numpy()[..., ::-1]))
    keys = mt.select_keyframes(clip[None], 10, 32, 50)
    found = plain.windowed_search(lambda i: tmp_path / f"{i:03d}.png", 10, 32, 50)
    assert found == (int(keys.onset), int(keys.apex), int(keys.offset))
