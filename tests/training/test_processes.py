import pytest
import torch
from ranks import torchrun

import mertools as mt


def test_alone():
    with mt.join_processes("cpu") as here:
        assert here == (0, 1, torch.device("cpu"))
        assert here.main
        here.wait()
        assert here.sum(torch.tensor(2.5)).item() == 2.5
    assert not torch.distributed.is_initialized()


def test_bad_settings(monkeypatch):
    with pytest.raises(ValueError, match="device must be 'auto', 'cpu' or 'cuda', got 'gpu'"):
        mt.join_processes("gpu").__enter__()
    for minutes in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="timeout_minutes must be"):
            mt.join_processes("cpu", timeout_minutes=minutes).__enter__()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="start the script with torchrun"), mt.join_processes("cpu"):
        pass
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ValueError, match="WORLD_SIZE must be a number, got 'two'"), mt.join_processes("cpu"):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu():
    with pytest.raises(ValueError, match="device must be 'cpu': there is no GPU"), mt.join_processes("cuda"):
        pass


def test_a_group_that_is_there_already_is_used_and_left(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        with mt.join_processes("cpu") as here:
            assert here[:2] == (0, 1)
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()


def test_two_processes(tmp_path):
    script = tmp_path / "s.py"
    script.write_text(f"""
import torch, pathlib, mertools as mt
with mt.join_processes("cpu") as here:
    total = here.sum(torch.tensor(here.rank + 1.0))
    here.wait()
    pathlib.Path({str(tmp_path)!r}, str(here.rank)).write_text(f"{{here.world}} {{total.item()}} {{here.main}}")
""")
    done = torchrun(script)
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["2 3.0 True", "2 3.0 False"]


@pytest.mark.parametrize("death", ["os.kill(os.getpid(), signal.SIGKILL)", "raise FloatingPointError('nan')"])
def test_a_dead_rank_fails_the_run(tmp_path, death):
    script = tmp_path / "s.py"
    script.write_text(f"""
import os, signal, torch, mertools as mt
with mt.join_processes("cpu", timeout_minutes=60) as here:
    here.wait()
    if here.rank == 1:
        {death}
    for _ in range(3):
        here.sum(torch.ones(1))
    here.wait()
    print("went on")
""")
    done = torchrun(script)  # which ends the other rank; waiting for the hour would run into the tests' own limit
    assert done.returncode != 0
    assert "went on" not in done.stdout
    if "nan" in death:
        assert "FloatingPointError: nan" in done.stderr
