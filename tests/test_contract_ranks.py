"""The contract among processes: DistributedDataParallel and FSDP2 train every module as one process with the whole batch.

One launch of two processes for all modules: starting them takes longer than the training steps.
"""

import copy
import traceback

import pytest
import torch
from contract import CASES
from contract_checks import applies, cast, leaves
from ranks import on_ranks
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from mertools.layers.drop_path import DropPath

fsdp = pytest.importorskip("torch.distributed.fsdp")
if not hasattr(fsdp, "fully_shard"):
    pytest.skip("FSDP2 is public from PyTorch 2.6 on", allow_module_level=True)

MODULES = [name for name, case in CASES.items() if applies(case, "ranks") is None]
WAYS = ("ddp", "static graph", "fsdp", "fsdp in 16 bits")
_ALSO = {"attach_au_head", "RetNetTemporal", "ManhattanRetNet"}  # by the costlier ways, too


def made(name):
    torch.manual_seed(0)
    module = CASES[name].make().train()
    for part in module.modules():
        # Draws differ from rank to rank, and so do statistics of a batch: PyTorch has them over all ranks on GPUs only.
        if isinstance(part, (DropPath, torch.nn.modules.batchnorm._BatchNorm)):
            part.eval()
    return module


def step(module, inputs):
    """One step of SGD on a mean over the clips."""
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    loss = sum(x.float().square().flatten(1).mean(1).mean() for x in leaves(module(*inputs)) if x.requires_grad)
    loss.backward()
    optimiser.step()


def one(name, way, rank, world):
    case = CASES[name]
    plain, module = made(name), made(name)
    torch.manual_seed(1)
    whole = case.inputs(2 * world, 7)
    fixed = [i for i in case.fixed if whole[i].ndim == 1]
    some = [x if i in fixed else x[2 * rank : 2 * rank + 2] for i, x in enumerate(whole)]
    step(plain, whole)
    tolerance = 1e-5
    if way.startswith("fsdp"):
        policy = fsdp.MixedPrecisionPolicy(param_dtype=torch.bfloat16 if "16" in way else None)
        before = copy.deepcopy(module.state_dict())
        mesh = init_device_mesh("cpu", (world,))
        for part in module.modules():
            # FSDP2 leaves buffers in float32, and PyTorch's batch_norm takes no 16-bit weights with float32 statistics.
            if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                fsdp.fully_shard(part, mesh=mesh)
        fsdp.fully_shard(module, mesh=mesh, mp_policy=policy)
        step(module, cast(some, torch.bfloat16) if "16" in way else some)
        tolerance = 0.05 if "16" in way else tolerance
        got = {k: p.full_tensor() for k, p in module.named_parameters()}
        options = StateDictOptions(full_state_dict=True)
        saved = get_model_state_dict(module, options=options)
        assert set(saved) == set(before)
        set_model_state_dict(module, dict(before), options=options)
        back = get_model_state_dict(module, options=options)
        assert all(torch.equal(back[key], before[key]) for key in before)
    else:
        module = DistributedDataParallel(module, static_graph=way == "static graph")
        step(module, some)
        got = {k.removeprefix("module."): p for k, p in module.named_parameters()}
    expected = dict(plain.named_parameters())
    assert set(got) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(
            got[key].detach(), value.detach(), atol=tolerance, rtol=tolerance, msg=lambda m, key=key: f"{key}: {m}"
        )


def work(rank, world, names):
    failures = {}
    for name in names:
        for way in WAYS:
            if way in ("ddp", "fsdp") or name in _ALSO:
                try:
                    one(name, way, rank, world)
                except Exception:
                    failures[name, way] = traceback.format_exc(limit=-3)
    return failures


@pytest.fixture(scope="module")
def failures():
    both = on_ranks(work, MODULES)
    return {**both[0], **both[1]}


@pytest.mark.parametrize("name", MODULES)
def test_two_processes_train_as_one(failures, name):
    assert [trace for (module, _), trace in failures.items() if module == name] == []
