import json
import sys

import pytest
import torch
from torch import nn

import mertools as mt

pytest.importorskip("safetensors")

SMALL = {"image_size": 32, "dims": [4, 8, 12, 16], "hidden": 11, "spatial_depth": 1}
CONFIGS = {
    "AUHead": {"in_features": 7, "num_aus": 5},
    "FramePool": {"how": "attention", "dim": 7},
    "Retention": {"dim": 14, "num_heads": 7, "learnable_decay": True},
    "RetNetTemporal": {"dim": 14, "depth": 2, "num_heads": 7, "drop_path": 0.2, "causal": False},
    "ManhattanRetention": {"dim": 14, "num_heads": 7, "decomposed": True},
    "ManhattanRetNet": {"dims": [4, 8, 12, 16], "checkpoint": True},
    "SpatialTransformer": {"dim": 14, "num_heads": 7, "grid": 5},
    "ParallelFusion": {"dim": 7, "hidden": 11, "num_classes": 13},
    "TSFmicro": {"num_classes": 5, "fusion": "t_to_s", **SMALL},
    "TwoBranch": {"net": {"class": "TSFmicro", "num_classes": 5, **SMALL}},
}


def build(name, config):
    parts = {k: build(v["class"], {**v}) if isinstance(v, dict) else v for k, v in config.items() if k != "class"}
    return getattr(mt, name)(**parts)


@pytest.mark.parametrize("name", CONFIGS)
def test_there_and_back(name, tmp_path):
    model = build(name, CONFIGS[name])
    state = torch.get_rng_state()
    mt.save_model(model, tmp_path / "model", CONFIGS[name])
    loaded = mt.load_model(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), state)
    assert type(loaded) is type(model)
    assert str(loaded) == str(model)
    assert not loaded.training
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in model.parameters()]
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), atol=0, rtol=0)


def test_every_public_module_with_weights_can_be_saved():
    modules = {name for name in mt.__all__ if isinstance(cls := getattr(mt, name), type) and issubclass(cls, nn.Module)}
    without = {"AUPriorLoss", "ClipAugment", "FocalLoss", "FrameSelector", "LogitAdjustedLoss"}
    assert modules - without == set(CONFIGS)


def test_outputs_and_dtype(tmp_path):
    config = {"num_classes": 5, **SMALL}
    model = mt.TSFmicro(**config).double().eval()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    loaded = mt.load_model(mt.save_model(model, tmp_path, config))
    assert torch.equal(loaded(*images), model(*images))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"dim": 14, "num_heads": 7}, r"RetNetTemporal.depth|blocks.1 is only in the one that it builds"),
        ({"dim": 14, "depth": 1, "num_heads": 1}, r"blocks.0.retention.decay is \[.*\], not \[0.96875\]"),
        ({"dim": 14, "depth": 1, "num_heads": 7, "causal": False}, r"RetNetTemporal.causal is True, not False"),
        ({"dim": 14, "depth": 1, "num_heads": 7, "value_dim": 21}, r"blocks.0.retention.value_dim is 14, not 21"),
        ({"dim": 14, "depth": 1, "num_heads": 7, "ffn_ratio": 2.0}, r"blocks.0.ffn.0.out_features is 56, not 28"),
        ({"dim": 14, "depth": 1, "heads": 7}, r"config does not fit RetNetTemporal: .*'heads'"),
    ],
)
def test_a_config_of_another_model_is_refused(config, message, tmp_path):
    model = mt.RetNetTemporal(14, 1, 7)
    with pytest.raises(ValueError, match=message):
        mt.save_model(model, tmp_path / "model", config)
    assert not (tmp_path / "model").exists()


def test_a_forgotten_rate_is_seen_too(tmp_path):
    config = {"dim": 14, "depth": 2, "num_heads": 7}
    with pytest.raises(ValueError, match=r"blocks.1.drop_path.rate is 0.5, not 0.0: complete the config"):
        mt.save_model(mt.RetNetTemporal(**config, drop_path=0.5), tmp_path, config)


def test_a_class_of_ones_own(tmp_path):
    class Mine(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.fc = nn.Linear(width, 2)

    folder = mt.save_model(Mine(3), tmp_path, {"width": 3})
    assert isinstance(mt.load_model(folder, Mine), Mine)
    with pytest.raises(
        ValueError, match=r"config names the class 'Mine', which is none of AUHead, .*: pass model_class="
    ):
        mt.load_model(folder)
    with pytest.raises(ValueError, match="config is that of a Mine, not of AUHead"):
        mt.load_model(folder, mt.AUHead)


@pytest.mark.parametrize("named", ["os.system", "Linear", None, ["TSFmicro"]])
def test_a_config_can_not_name_other_code(named, tmp_path):
    mt.save_model(mt.AUHead(3, 2), tmp_path, {"in_features": 3, "num_aus": 2})
    (tmp_path / "config.json").write_text(json.dumps({"in_features": 3, "num_aus": 2, "class": named}))
    with pytest.raises(ValueError, match="config names the class"):
        mt.load_model(tmp_path)


def test_broken_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no config.json"):
        mt.load_model(tmp_path)
    mt.save_model(mt.AUHead(3, 2), tmp_path, {"in_features": 3, "num_aus": 2})
    good = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(good[:-3])
    with pytest.raises(ValueError, match="can't be read"):
        mt.load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(good)
    (tmp_path / "config.json").write_text(json.dumps({"in_features": 4, "num_aus": 2, "class": "AUHead"}))
    with pytest.raises(ValueError, match=r"does not fit AUHead .*of another shape \['.*weight'\]"):
        mt.load_model(tmp_path)
    for text, message in (("{", "is no JSON"), ("[]", "must hold the constructor's arguments")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            mt.load_model(tmp_path)


def test_what_can_not_be_written(tmp_path):
    with pytest.raises(TypeError, match="config must hold what JSON can write"):
        mt.save_model(mt.AUHead(3), tmp_path, {"in_features": 3, "x": torch.ones(1)})
    with pytest.raises(TypeError, match="config must be a mapping"):
        mt.save_model(mt.AUHead(3), tmp_path, 3)
    with pytest.raises(TypeError, match="model must be an nn.Module"):
        mt.save_model("AUHead", tmp_path, {})


def test_a_missing_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match=r"save_model needs safetensors: pip install 'mertools\[hub\]'"):
        mt.save_model(mt.AUHead(3), tmp_path, {"in_features": 3})


def test_the_hub_mixin_reads_and_writes_the_same_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub = pytest.importorskip("huggingface_hub")

    class Hosted(mt.TSFmicro, hub.PyTorchModelHubMixin):
        pass

    config = {"num_classes": 5, "fusion": "early", **SMALL}
    model = Hosted(**config).eval()
    images = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32)
    expected = model(*images)

    model.save_pretrained(tmp_path / "theirs")
    assert torch.equal(Hosted.from_pretrained(tmp_path / "theirs").eval()(*images), expected)
    plain = mt.load_model(tmp_path / "theirs", mt.TSFmicro)
    assert type(plain) is mt.TSFmicro
    assert torch.equal(plain(*images), expected)

    mt.save_model(plain, tmp_path / "ours", config)
    assert torch.equal(Hosted.from_pretrained(tmp_path / "ours").eval()(*images), expected)
