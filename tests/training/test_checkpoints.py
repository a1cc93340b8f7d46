import errno
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mertools as mt
from mertools import _files as files


def net(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 2))


def test_a_checkpoint_comes_back_with_all_random_states(tmp_path):
    model = net()
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.randn(7, 3)).sum().backward()
    optimiser.step()
    path = tmp_path / "c.pt"
    legacy = np.random  # its global state is what people's code draws from
    torch.manual_seed(3), legacy.seed(4), random.seed(5)
    legacy.randn()  # the generator keeps a second gaussian back
    random.gauss(0, 1)
    mt.save_checkpoint(path, {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "names": ["a", None]})
    drawn = torch.rand(3), legacy.randn(3), random.gauss(0, 1), random.random()
    state = mt.load_checkpoint(path)
    again = torch.rand(3), legacy.randn(3), random.gauss(0, 1), random.random()
    assert torch.equal(drawn[0], again[0])
    assert np.array_equal(drawn[1], again[1])
    assert drawn[2:] == again[2:]
    assert state["names"] == ["a", None]
    fresh = net(1)
    fresh.load_state_dict(state["model"])
    torch.optim.AdamW(fresh.parameters()).load_state_dict(state["optimiser"])
    assert all(torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), model.state_dict().values(), strict=True))


def test_the_random_state_can_be_left_alone(tmp_path):
    torch.manual_seed(0)
    mt.save_checkpoint(tmp_path / "c.pt", {"epoch": 1})
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    mt.load_checkpoint(tmp_path / "c.pt", restore_random=False)
    assert torch.equal(torch.rand(2), expected)


def test_what_could_run_code_is_refused_when_it_is_written(tmp_path):
    path = tmp_path / "c.pt"
    mt.save_checkpoint(path, {"epoch": 1})
    with pytest.raises(TypeError, match="state must hold tensors, numbers"):
        mt.save_checkpoint(path, {"path": Path("x")})
    assert mt.load_checkpoint(path) == {"epoch": 1}


def test_pickled_code_is_not_run_when_it_is_read(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    for read in (mt.load_checkpoint, mt.load_weights):
        with pytest.raises(ValueError, match=r"evil\.pt can't be read"):
            read(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("cut", [0, 1, 40, -1, -200])
def test_damaged_files(tmp_path, cut):
    path = tmp_path / "c.pt"
    mt.save_checkpoint(path, {"model": net().state_dict()})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"c\.pt"):
        mt.load_checkpoint(path)


def test_files_of_another_kind(tmp_path):
    mt.save_weights(tmp_path / "w.pt", net())
    with pytest.raises(ValueError, match="weights are read with load_weights"):
        mt.load_checkpoint(tmp_path / "w.pt")
    mt.save_checkpoint(tmp_path / "c.pt", {"epoch": 2})
    with pytest.raises(ValueError, match="must hold the weights of a model"):
        mt.load_weights(tmp_path / "c.pt")
    (tmp_path / "w.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="as safetensors"):
        mt.load_weights(tmp_path / "w.safetensors")
    for name in ("no.pt", "no.safetensors"):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            mt.load_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_weights_of_either_kind(tmp_path, name):
    model = net()
    model[2].weight = torch.nn.Parameter(model[2].weight.T.contiguous().T)  # not contiguous
    mt.save_weights(tmp_path / name, model)
    weights = mt.load_weights(tmp_path / name)
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())


def test_shared_weights_as_safetensors(tmp_path):
    model = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
    model[1].weight = model[0].weight
    mt.save_weights(tmp_path / "w.safetensors", model)
    model.load_state_dict(mt.load_weights(tmp_path / "w.safetensors"))


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    mt.save_checkpoint(path, {"epoch": 1})

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*c\.pt'") as caught:
        mt.save_checkpoint(path, {"epoch": 2})
    assert caught.value.errno == errno.ENOSPC
    assert mt.load_checkpoint(path) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX's")
def test_a_file_that_may_not_grow_leaves_the_last_checkpoint(tmp_path):
    # The limit is the system's own, so the write really stops half way.
    code = """
import resource, signal, sys, torch, mertools as mt
path = sys.argv[1]
mt.save_checkpoint(path, {"epoch": 1})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
mt.save_checkpoint(path, {"epoch": 2, "big": torch.zeros(300_000)})
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "c.pt")], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(r"OSError: \[Errno 27\] File too large: '.*c\.pt'", done.stderr.splitlines()[-1])
    assert mt.load_checkpoint(tmp_path / "c.pt") == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]
