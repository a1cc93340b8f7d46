import pytest
import torch
from torch import nn

import mertools as mt
from mertools.retention import micro_batches
from mertools.retention.micro_batches import in_micro_batches, micro_batch_size, splittable


@pytest.mark.parametrize("count", [0, 1, 4, 7])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_equal_whatever_the_size(count, layout):
    conv = nn.Conv2d(3, 5, 3).to(memory_format=layout)
    x = torch.randn(count, 3, 7, 11).contiguous(memory_format=layout)
    sizes = []
    with torch.no_grad():
        y = in_micro_batches(lambda part: sizes.append(len(part)) or conv(part), x, micro_batches._MAP_BYTES // 2)
        torch.testing.assert_close(y, conv(x))
    assert sizes == {0: [0], 1: [1], 4: [2, 2], 7: [2, 2, 2, 1]}[count]
    assert not count or y.is_contiguous(memory_format=layout)


def test_at_least_one_image():
    assert micro_batch_size(10**12) == 1
    assert micro_batch_size(0) == micro_batches._MAP_BYTES


def test_when_a_batch_may_be_split():
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), torch.randn(2, 3, 5, 7)
    assert not splittable(net.eval(), x)  # gradients
    with torch.no_grad():
        assert splittable(net, x)
        assert not splittable(net.train(), x)
        net.eval()
        handle = net[0].register_forward_hook(lambda *_: None)
        assert not splittable(net, x)
        handle.remove()
        assert not splittable(nn.Sequential(net, nn.BatchNorm2d(4, track_running_stats=False)).eval(), x)
        assert not splittable(net, x.to("meta"))


@torch.no_grad()
def test_vmap():
    conv, x = nn.Conv2d(3, 5, 3), torch.randn(2, 4, 3, 7, 11)
    got = torch.func.vmap(lambda batch: in_micro_batches(conv, batch, micro_batches._MAP_BYTES))(x)
    torch.testing.assert_close(got, torch.stack([conv(part) for part in x]))


def test_made_on_the_meta_device():
    """Nothing of the backbone is lost when weights come after the module, as large models are loaded."""
    net = mt.ManhattanRetNet(dims=(4, 8, 12, 16)).eval()
    with torch.device("meta"):
        empty = mt.ManhattanRetNet(dims=(4, 8, 12, 16)).eval()
    empty.load_state_dict(net.state_dict(), assign=True)
    x = torch.randn(1, 3, 33, 47)
    torch.testing.assert_close(empty(x), net(x))


@pytest.fixture
def one_by_one(monkeypatch):
    monkeypatch.setattr(micro_batches, "_MAP_BYTES", 1)


def test_the_backbone_is_the_same_in_micro_batches(one_by_one, monkeypatch):
    net, x = mt.ManhattanRetNet(dims=(4, 8, 12, 16)).eval(), torch.randn(3, 3, 33, 47)
    with torch.no_grad():
        split = net(x)
        monkeypatch.setattr(micro_batches, "_MAP_BYTES", 1 << 30)
        torch.testing.assert_close(split, net(x), atol=1e-5, rtol=1e-5)


def test_hooks_are_handed_the_whole_batch(one_by_one):
    net, seen = mt.ManhattanRetNet(dims=(4, 8, 12, 16)).eval(), []
    net.stages[0].blocks[0].register_forward_hook(lambda module, args, output: seen.append(len(output)))
    with torch.no_grad():
        net(torch.randn(3, 3, 33, 47))
    assert seen == [3]


def test_checkpointing_in_micro_batches(one_by_one):
    """The same gradients, batch norm counts every batch once, and less is kept."""
    torch.manual_seed(3)
    plain, saving = (mt.ManhattanRetNet(dims=(4, 8, 12, 16), drop_path=0.0, checkpoint=c) for c in (False, True))
    saving.load_state_dict(plain.state_dict())
    x, kept = torch.randn(5, 3, 33, 47), []
    for net in (plain, saving):
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: s.append(t.numel()) or t, lambda t: t):
            net(x).square().sum().backward()
        kept.append(sum(saved))
    # Of the largest of all: a bias before a batch norm has a gradient of zero, which is rounding alone.
    atol = 1e-5 * max(float(a.grad.abs().max()) for a in plain.parameters())
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=atol, rtol=1e-4, msg=name)
    for (name, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    assert kept[1] < 0.7 * kept[0]
