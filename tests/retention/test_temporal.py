import pytest
import torch

import mertools as mt


def tiny_stem(channels=12, in_channels=3):
    return torch.nn.Sequential(torch.nn.Conv2d(in_channels, channels, 4, stride=4), torch.nn.BatchNorm2d(channels))


def encoder(**settings):
    return mt.RetNetTemporal(12, depth=2, num_heads=3, **settings).double().eval()


def test_takes_the_place_of_an_lstm_over_frame_features():
    features = torch.randn(5, 16, 12)
    lstm, _ = torch.nn.LSTM(12, 12, batch_first=True)(features)
    assert mt.RetNetTemporal(12, num_heads=3)(features).shape == lstm.shape


@pytest.mark.parametrize("mode", ["parallel", "chunkwise", "recurrent"])
def test_every_mode_gives_the_same(mode):
    net, x = encoder(), torch.randn(2, 131, 12, dtype=torch.float64)
    torch.testing.assert_close(net(x, mode=mode), net(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("mode", ["parallel", "chunkwise", "recurrent", "auto"])
def test_state_carries_a_stream(mode):
    net, x = encoder(), torch.randn(2, 23, 12, dtype=torch.float64)
    first, state = net(x[:, :9], mode=mode, return_state=True)
    rest, state = net(x[:, 9:22], mode=mode, state=state, return_state=True)
    last, state = net.step(x[:, 22], state)
    assert len(state) == 2
    torch.testing.assert_close(torch.cat([first, rest, last[:, None]], 1), net(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("causal", [True, False])
def test_lengths_leave_padding_out(causal):
    net, x = encoder(causal=causal), torch.randn(3, 17, 12, dtype=torch.float64)
    padded = x.clone()
    padded[1, 5:] = torch.nan
    padded[2, 16:] = torch.nan
    padded.requires_grad_()
    y = net(padded, lengths=torch.tensor([17, 5, 16]))
    for i, n in enumerate([17, 5, 16]):
        torch.testing.assert_close(y[i : i + 1, :n], net(x[i : i + 1, :n]), rtol=0, atol=1e-10)
        assert not y[i, n:].any()
    y.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in [padded, *net.parameters()] if p.grad is not None)


def test_causality():
    net, x = encoder(), torch.randn(1, 19, 12, dtype=torch.float64)
    changed = x.clone()
    changed[:, 11] += 1
    assert torch.equal(net(x)[:, :11], net(changed)[:, :11])
    two_sided = encoder(causal=False)
    assert not torch.equal(two_sided(x)[:, :11], two_sided(changed)[:, :11])


def test_depth_zero_with_a_stem_is_the_stem():
    stem = tiny_stem().eval()
    net = mt.RetNetTemporal(12, depth=0, stem=stem)
    x = torch.randn(2, 3, 20, 28)
    assert torch.equal(net(x), stem(x))
    clip = torch.randn(2, 5, 3, 20, 28)
    assert torch.equal(net(clip), stem(clip.flatten(0, 1)).unflatten(0, (2, 5)))


def test_with_a_stem_retention_runs_along_time_at_each_place():
    net = mt.RetNetTemporal(12, depth=1, num_heads=3, stem=tiny_stem()).double().eval()
    clip = torch.randn(2, 5, 3, 20, 28, dtype=torch.float64)
    y = net(clip)
    assert y.shape == (2, 5, 12, 5, 7)
    maps = net.stem(clip.flatten(0, 1)).unflatten(0, (2, 5))
    plain = mt.RetNetTemporal(12, depth=1, num_heads=3).double().eval()
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("stem.")})
    torch.testing.assert_close(y[:, :, :, 3, 4], plain(maps[:, :, :, 3, 4]), rtol=0, atol=1e-12)
    torch.testing.assert_close(net(clip[:, 0]), y[:, 0], rtol=0, atol=1e-12)


def test_with_a_stem_a_stream_is_the_whole_clip():
    net = mt.RetNetTemporal(12, depth=1, num_heads=3, stem=tiny_stem()).double().eval()
    clip = torch.randn(2, 5, 3, 20, 28, dtype=torch.float64)
    state, frames = None, []
    for frame in clip.unbind(1):
        y, state = net.step(frame, state)
        frames.append(y)
    torch.testing.assert_close(torch.stack(frames, 1), net(clip), rtol=0, atol=1e-10)


def test_padding_does_not_reach_the_stems_batch_norm():
    net = mt.RetNetTemporal(12, depth=1, num_heads=3, stem=tiny_stem()).train()
    clip = torch.randn(2, 5, 3, 20, 28)
    padded = torch.cat([clip, torch.full((2, 3, 3, 20, 28), torch.nan)], 1)
    y = net(padded, lengths=[5, 5])
    assert not y[:, 5:].any()
    torch.testing.assert_close(y[:, :5], net(clip))


def test_drop_path_only_in_training():
    net = mt.RetNetTemporal(12, depth=2, num_heads=3, drop_path=0.5)
    x = torch.randn(7, 5, 12)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


NET = mt.RetNetTemporal(12, num_heads=3)
CLIP = torch.zeros(2, 5, 12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mt.RetNetTemporal(depth=-1), ValueError, "depth must be an integer of at least 0"),
        (lambda: mt.RetNetTemporal(12, num_heads=5), ValueError, "dim must be a multiple of num_heads"),
        (lambda: mt.RetNetTemporal(stem="resnet"), TypeError, "stem must be an nn.Module"),
        (lambda: NET(torch.zeros(2, 5, 11)), ValueError, r"x must be \(b, t, 12\) without a stem"),
        (lambda: NET(torch.zeros(2, 3, 8, 8)), ValueError, r"pass stem=ManhattanRetNet\(\)"),
        (lambda: NET([1]), TypeError, "x must be a torch.Tensor"),
        (lambda: NET(CLIP, state=(CLIP,)), ValueError, "one state for each of 2 blocks, got 1"),
        (lambda: NET(CLIP, mode="lstm"), ValueError, "mode must be one of"),
        (lambda: NET(CLIP, lengths=[9, 1]), ValueError, "got 9 for clip 0"),
        (lambda: NET.step(CLIP), ValueError, "x_t must be one frame per stream"),
        (
            lambda: mt.RetNetTemporal(13, depth=0, stem=tiny_stem())(torch.zeros(1, 3, 8, 8)),
            ValueError,
            r"stem must return maps \(n, 13, h, w\)",
        ),
        (
            lambda: mt.RetNetTemporal(12, depth=0, stem=tiny_stem())(torch.zeros(1, 3, 8)),
            ValueError,
            r"\(b, c, h, w\) or \(b, t, c, h, w\)",
        ),
        (
            lambda: mt.RetNetTemporal(12, depth=0, stem=tiny_stem())(torch.zeros(1, 3, 8, 8), lengths=[1]),
            ValueError,
            "lengths needs a time axis",
        ),
        (
            lambda: mt.RetNetTemporal(12, num_heads=3, causal=False)(CLIP, return_state=True),
            ValueError,
            "causal=True",
        ),
        (lambda: mt.RetNetTemporal(12, num_heads=3, causal=False).step(CLIP[:, 0]), ValueError, "causal=True"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_checkpointing_changes_memory_only():
    plain = mt.RetNetTemporal(12, depth=3, num_heads=3, drop_path=0.5)
    saving = mt.RetNetTemporal(12, depth=3, num_heads=3, drop_path=0.5, checkpoint=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(5, 17, 12)
    outputs = []
    for net in (plain, saving):
        torch.manual_seed(1)
        y, state = net(x, return_state=True, lengths=[17, 3, 9, 1, 12])
        (y.square().sum() + sum(s.memory.sum() for s in state)).backward()
        outputs.append(y)
    torch.testing.assert_close(*outputs)
    for (name, a), b in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b[1].grad, msg=name)


def test_learnable_decays_reach_every_block():
    net = mt.RetNetTemporal(12, depth=2, num_heads=3, decay=[0.5, 0.9, 0.99], learnable_decay=True)
    net(torch.randn(2, 7, 12)).square().sum().backward()
    for block in net.blocks:
        torch.testing.assert_close(block.retention.decay_logit.sigmoid(), torch.tensor([0.5, 0.9, 0.99]))
        assert block.retention.decay_logit.grad.abs().min() > 0
