import copy
import inspect
import json
import pickle
import sys

import numpy as np
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
    "LSTMShape": {"encoder": {"class": "RetNetTemporal", "dim": 14, "depth": 1, "num_heads": 7}, "output_size": 22},
    "TwoBranch": {"net": {"class": "TSFmicro", "num_classes": 5, **SMALL}},
}


def build(name, config):
    parts = {k: build(v["class"], {**v}) if isinstance(v, dict) else v for k, v in config.items() if k != "class"}
    return getattr(mt, name)(**parts)


@pytest.mark.parametrize("name", CONFIGS)
def test_there_and_back(name, tmp_path):
    model = build(name, CONFIGS[name])
    state = torch.get_rng_state()
    mt.save_model(model, tmp_path / "model")
    loaded = mt.load_model(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), state)
    assert type(loaded) is type(model)
    assert str(loaded) == str(model)
    assert not loaded.training
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in model.parameters()]
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), atol=0, rtol=0)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config.items() >= {**CONFIGS[name], "class": name}.items() or name in ("TwoBranch", "LSTMShape")
    assert config.keys() >= inspect.signature(type(model)).parameters.keys() - {"device", "dtype"}
    again = pickle.loads(pickle.dumps(copy.deepcopy(loaded)))  # copies remember it, too
    assert json.loads((mt.save_model(again, tmp_path / "again") / "config.json").read_text()) == config


def test_every_public_module_with_weights_can_be_saved():
    modules = {name for name in mt.__all__ if isinstance(cls := getattr(mt, name), type) and issubclass(cls, nn.Module)}
    without = {"AUPriorLoss", "ClipAugment", "FocalLoss", "FrameSelector", "LogitAdjustedLoss"}
    assert modules - without - {"FrameEncoder"} == set(CONFIGS)  # which holds a network of others


def test_outputs_and_dtype(tmp_path):
    model = mt.TSFmicro(5, **SMALL).double().eval()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    loaded = mt.load_model(mt.save_model(model, tmp_path))
    assert torch.equal(loaded(*images), model(*images))


def test_what_is_given_by_position_or_as_an_array_is_recorded(tmp_path):
    decay = np.linspace(0.5, 0.9, 7, dtype=np.float32)
    model = mt.Retention(np.int64(14), 7, decay=torch.as_tensor(decay), device="cpu", dtype=torch.float64)
    loaded = mt.load_model(mt.save_model(model, tmp_path))
    torch.testing.assert_close(loaded.log_decay, model.log_decay, atol=0, rtol=0)
    assert loaded.in_proj.weight.dtype == torch.float64
    assert json.loads((tmp_path / "config.json").read_text())["decay"] == decay.tolist()


def test_a_part_is_written_as_it_is_now(tmp_path):
    stem = mt.ManhattanRetNet(dims=(4, 8, 12, 28))
    model = mt.RetNetTemporal(28, 1, 7, stem=stem)
    model.stem = mt.ManhattanRetNet(dims=(8, 12, 16, 28), drop_path=0.3)
    loaded = mt.load_model(mt.save_model(model, tmp_path))
    assert str(loaded) == str(model)


def test_what_was_changed_since_it_was_built_is_refused(tmp_path):
    model = mt.ParallelFusion(7, 11, num_classes=3)
    model.head = nn.Linear(11, 5)
    with pytest.raises(ValueError, match=r"arguments of ParallelFusion build another model: .*another shape \['head"):
        mt.save_model(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mt.RetNetTemporal(14, 1, 7, norm=nn.RMSNorm), "norm is RMSNorm, which JSON can't write"),
        (lambda: mt.TwoBranch(nn.Conv2d(3, 5, 3)), "net is a Conv2d, whose constructor's arguments are not recorded"),
        (lambda: mt.attach_au_head(mt.AUHead(7), "linear"), "the arguments that built this WithAUHead are not known"),
        (lambda: nn.Linear(3, 2), "pass them, .* or derive Linear from huggingface_hub.PyTorchModelHubMixin"),
        (lambda: "AUHead", "model must be an nn.Module"),
    ],
)
def test_what_can_not_be_written(build, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        mt.save_model(build(), tmp_path / "model")
    assert not (tmp_path / "model").exists()


class Mine(nn.Module):
    def __init__(self, width, tied=False):
        super().__init__()
        self.embed, self.fc = nn.Linear(width, 2), nn.Linear(width, 2)
        if tied:
            self.fc.weight = self.embed.weight


def test_a_class_of_ones_own(tmp_path):
    folder = mt.save_model(Mine(3), tmp_path, {"width": 3})
    assert isinstance(mt.load_model(folder, Mine), Mine)
    with pytest.raises(
        ValueError, match=r"config names the class 'Mine', which is none of AUHead, .*: pass model_class="
    ):
        mt.load_model(folder)
    with pytest.raises(ValueError, match="config is that of a Mine, not of AUHead"):
        mt.load_model(folder, mt.AUHead)
    with pytest.raises(ValueError, match=r"arguments of Mine build another model: .*of another shape"):
        mt.save_model(Mine(3), tmp_path, {"width": 4})
    with pytest.raises(TypeError, match="config must hold what JSON can write"):
        mt.save_model(Mine(3), tmp_path, {"width": 3, "x": torch.ones(1)})
    with pytest.raises(TypeError, match="config must be a mapping"):
        mt.save_model(Mine(3), tmp_path, 3)


class Heir(mt.AUHead):
    def __init__(self):
        super().__init__(7, 5)


def test_a_subclass_with_a_constructor_of_its_own(tmp_path):
    with pytest.raises(TypeError, match="the arguments that built this Heir are not known"):
        mt.save_model(Heir(), tmp_path)
    assert isinstance(mt.load_model(mt.save_model(Heir(), tmp_path, {}), Heir), Heir)


def test_arguments_that_are_given_all_the_same_must_be_right(tmp_path):
    mt.save_model(mt.AUHead(3, 2), tmp_path, {"in_features": 3})
    with pytest.raises(ValueError, match="AUHead was built with num_aus=2, config has 18"):
        mt.save_model(mt.AUHead(3, 2), tmp_path, {"in_features": 3, "num_aus": 18})


def test_tied_weights_stay_tied(tmp_path):
    model = Mine(3, tied=True)
    folder = mt.save_model(model, tmp_path, {"width": 3, "tied": True})
    loaded = mt.load_model(folder, Mine)
    assert loaded.fc.weight is loaded.embed.weight
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), atol=0, rtol=0)
    frozen = Mine(3, tied=True).requires_grad_(False)
    mt.save_model(frozen, tmp_path, {"width": 3, "tied": True})
    torch.testing.assert_close(mt.load_model(tmp_path, Mine).state_dict(), frozen.state_dict(), atol=0, rtol=0)


@pytest.mark.parametrize("named", ["os.system", "Linear", None, ["TSFmicro"]])
def test_a_config_can_not_name_other_code(named, tmp_path):
    mt.save_model(mt.AUHead(3, 2), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"in_features": 3, "num_aus": 2, "class": named}))
    with pytest.raises(ValueError, match="config names the class"):
        mt.load_model(tmp_path)


def test_broken_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no config.json"):
        mt.load_model(tmp_path)
    mt.save_model(mt.AUHead(3, 2), tmp_path)
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


def test_a_missing_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match=r"save_model needs safetensors: pip install 'mertools\[hub\]'"):
        mt.save_model(mt.AUHead(3), tmp_path)


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

    mt.save_model(plain, tmp_path / "ours")
    assert torch.equal(Hosted.from_pretrained(tmp_path / "ours").eval()(*images), expected)
    assert torch.equal(mt.load_model(mt.save_model(model, tmp_path / "own"), Hosted)(*images), expected)


def test_tied_weights_and_the_hub_mixin(monkeypatch, tmp_path):
    """A tied weight is under one name in the file; which one is each writer's choice."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub = pytest.importorskip("huggingface_hub")

    class Hosted(Mine, hub.PyTorchModelHubMixin):
        pass

    model = Hosted(3, tied=True)
    model.save_pretrained(tmp_path / "theirs")
    mt.save_model(model, tmp_path / "ours")
    for folder in ("theirs", "ours"):
        for loaded in (mt.load_model(tmp_path / folder, Hosted), Hosted.from_pretrained(tmp_path / folder)):
            assert loaded.fc.weight is loaded.embed.weight
            torch.testing.assert_close(loaded.state_dict(), model.state_dict(), atol=0, rtol=0)
