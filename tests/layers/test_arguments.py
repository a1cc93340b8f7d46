import inspect

import numpy as np
import pytest
import torch
from torch import nn

import mertools as mt
from mertools.layers.arguments import RECORDED, recorded_arguments, records_arguments


@pytest.fixture
def layer(monkeypatch):
    monkeypatch.setattr("mertools.layers.arguments.RECORDED", {})

    @records_arguments
    class Layer(nn.Module):
        def __init__(self, dim: int, *, sizes=(1, 2), part=None, device=None):
            """What it does."""
            super().__init__()
            self.dim, self.part = dim, part

    return Layer


def test_defaults_positions_and_arrays(layer):
    assert recorded_arguments(layer(np.int32(3))) == {"class": "Layer", "dim": 3, "sizes": [1, 2], "part": None}
    made = layer(3, sizes=torch.arange(2.0), device=torch.device("cpu"))
    assert recorded_arguments(made)["sizes"] == [0.0, 1.0]
    assert "device" not in recorded_arguments(made)


def test_the_constructor_looks_as_it_did(layer):
    assert list(inspect.signature(layer).parameters) == ["dim", "sizes", "part", "device"]
    assert layer.__init__.__doc__ == "What it does."
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'dim'"):
        layer()


def test_parts_are_described_as_they_are_now(layer):
    made = layer(3, part=layer(5))
    made.part = layer(7)
    assert recorded_arguments(made)["part"]["dim"] == 7
    made.part = nn.Identity()
    with pytest.raises(TypeError, match="part is a Identity, whose constructor's arguments are not recorded"):
        recorded_arguments(made)


@pytest.mark.parametrize("value", [len, object(), {1: 2}, [object()], b"x"])
def test_what_is_nothing_plain(layer, value):
    with pytest.raises(TypeError, match="part is .*, which JSON can't write"):
        recorded_arguments(layer(3, part=value))


def test_a_module_that_records_nothing():
    assert recorded_arguments(nn.Linear(2, 3)) is None
    head = mt.attach_au_head(mt.AUHead(7), "linear")  # hands attributes of its host on, but is another module
    assert recorded_arguments(head) is None


def test_the_modules_of_the_library_record():
    assert {cls.__name__ for cls in RECORDED.values() if getattr(mt, cls.__name__, None) is cls} >= {
        "AUHead", "FramePool", "Retention", "RetNetTemporal", "TSFmicro", "TwoBranch",
    }  # fmt: skip
