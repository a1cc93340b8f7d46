import importlib.util
import sys
import types

import pytest
import torch
from torch import nn

import mertools as mt


def images():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_every_frame_by_itself():
    encoder, clips = mt.FrameEncoder(images()).eval(), torch.randn(2, 5, 3, 11, 13)
    features = encoder(clips)
    assert features.shape == (2, 5, 8)
    torch.testing.assert_close(features[1, 3], encoder.net(clips[1, 3:4])[0])


def test_padding_does_not_pass_the_network():
    """Batch norm in training would count it."""
    encoder, clips = mt.FrameEncoder(images()).train(), torch.randn(2, 5, 3, 11, 13)
    clips[1, 2:] = torch.nan
    features = encoder(clips, lengths=[5, 2])
    assert features.isfinite().all()
    assert not features[1, 2:].any()
    alone = mt.FrameEncoder(images())
    alone.load_state_dict(encoder.state_dict())
    valid = torch.cat([clips[0], clips[1, :2]])
    torch.testing.assert_close(torch.cat([features[0], features[1, :2]]), alone.net(valid))


class Timm(types.ModuleType):
    """What is asked of timm."""

    def is_model(self, name):
        return name == "tiny"

    def list_models(self, pattern):
        return ["tiny"] if pattern.strip("*") in "tiny" else []

    def create_model(self, name, *, pretrained, num_classes):
        assert (name, num_classes) == ("tiny", 0)
        net = images()
        net.pretrained = pretrained
        return net


def test_a_model_of_timm_by_its_name(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "timm", Timm("timm"))
    encoder = mt.FrameEncoder("tiny", pretrained=True)
    assert encoder.net.pretrained
    assert encoder(torch.zeros(1, 2, 3, 11, 13)).shape == (1, 2, 8)
    with pytest.raises(ValueError, match=r"one of timm's models, got 'tin': did you mean tiny\?"):
        mt.FrameEncoder("tin")
    pytest.importorskip("safetensors")
    again = mt.load_model(mt.save_model(mt.FrameEncoder("tiny"), tmp_path))
    assert not again.net.pretrained


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"needs timm: pip install 'mertools\[timm\]'"):
        mt.FrameEncoder("resnet18")


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="the extra timm is not installed")
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_timm_itself(name):
    import timm

    encoder = mt.FrameEncoder(name).eval()
    width = getattr(encoder.net, "head_hidden_size", None) or encoder.net.num_features
    assert encoder(torch.zeros(1, 2, 3, 224, 224)).shape == (1, 2, width)
    logits, au_logits = mt.attach_au_head(timm.create_model(name, num_classes=7).eval())(torch.zeros(1, 3, 224, 224))
    assert (logits.shape, au_logits.shape) == ((1, 7), (1, 18))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mt.FrameEncoder(3), TypeError, "net must be an nn.Module or the name of a timm model, got int"),
        (lambda: mt.FrameEncoder(images(), pretrained=True), ValueError, "pretrained must be False"),
        (lambda: mt.FrameEncoder(images())(torch.zeros(2, 3, 8, 8)), ValueError, r"clips must be \(b, t, c, h, w\)"),
        (lambda: mt.FrameEncoder(images())(torch.zeros(1, 2, 3, 8, 8).byte()), TypeError, "clips must be floating"),
        (lambda: mt.FrameEncoder(nn.Identity())(torch.zeros(1, 2, 3, 8, 8)), ValueError, "pool its map first"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
