"""What holds for every module: types, copies, one graph, layouts, batch independence."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import nn

import mertools as mt


class Case(NamedTuple):
    make: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[torch.Tensor, ...]]  # a batch of that size; a distinct prime for every other axis


def image(b, h=37, w=29, c=3):
    return torch.randn(b, c, h, w)


CASES = {
    "AUHead": Case(lambda: mt.AUHead(7, 5), lambda b: (torch.randn(b, 7),)),
    "Retention": Case(lambda: mt.Retention(14, 7), lambda b: (torch.randn(b, 11, 14),)),
    "Retention two-sided": Case(lambda: mt.Retention(14, 7, causal=False), lambda b: (torch.randn(b, 11, 14),)),
    "Retention learnable": Case(lambda: mt.Retention(14, 7, learnable_decay=True), lambda b: (torch.randn(b, 11, 14),)),
    "FramePool": Case(lambda: mt.FramePool("attention", dim=7), lambda b: (torch.randn(b, 11, 7),)),
    "RetNetTemporal": Case(lambda: mt.RetNetTemporal(14, 2, 7), lambda b: (torch.randn(b, 11, 14),)),
    "RetNetTemporal with stem": Case(
        lambda: mt.RetNetTemporal(28, 1, 7, stem=mt.ManhattanRetNet(dims=(4, 8, 12, 28))),
        lambda b: (torch.randn(b, 2, 3, 37, 29),),
    ),
    "ManhattanRetention": Case(lambda: mt.ManhattanRetention(14, 7), lambda b: (torch.randn(b, 3, 5, 14),)),
    "ManhattanRetention over time": Case(
        lambda: mt.ManhattanRetention(14, 7), lambda b: (torch.randn(b, 2, 3, 5, 14),)
    ),
    "ManhattanRetention decomposed": Case(
        lambda: mt.ManhattanRetention(14, 7, decomposed=True), lambda b: (torch.randn(b, 3, 5, 14),)
    ),
    "ManhattanRetNet": Case(lambda: mt.ManhattanRetNet(dims=(4, 8, 12, 16)), lambda b: (image(b),)),
    "SpatialTransformer": Case(lambda: mt.SpatialTransformer(14, 2, 7, grid=5), lambda b: (image(b),)),
    "ParallelFusion": Case(
        lambda: mt.ParallelFusion(7, 11, num_classes=13), lambda b: (image(b, 3, 5, 7), image(b, 3, 5, 7))
    ),
    "TwoBranch": Case(lambda: mt.TwoBranch(Net()), lambda b: (image(b), image(b), image(b))),
} | {
    f"TSFmicro {fusion}": Case(
        lambda fusion=fusion: mt.TSFmicro(
            5, fusion=fusion, image_size=32, dims=(4, 8, 12, 16), hidden=11, spatial_depth=1
        ),
        lambda b: (image(b, 32, 32), image(b, 32, 32)),
    )
    for fusion in ("parallel", "early", "s_to_t", "t_to_s")
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 5, 3)

    def forward(self, static, motion):
        return self.conv(torch.cat([static, motion], 1)).mean((2, 3))


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def first(output):
    return output[0] if isinstance(output, tuple) else output


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(first(a), first(b), atol=tolerance, rtol=tolerance)


def test_copies_compute_the_same(case):
    module, inputs = case.make().eval(), case.inputs(2)
    expected = module(*inputs)
    close(copy.deepcopy(module)(*inputs), expected, 0)
    close(pickle.loads(pickle.dumps(module))(*inputs), expected, 0)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh = case.make().eval()
    fresh.load_state_dict(torch.load(file, weights_only=True), strict=True)
    close(fresh(*inputs), expected, 0)


def test_float64_in_float64_out(case):
    module, inputs = case.make().eval(), case.inputs(2)
    expected = first(module(*inputs))
    output = first(module.double()(*(x.double() for x in inputs)))
    assert output.dtype == torch.float64
    close(output.float(), expected, 1e-4)


def test_bfloat16_autocast(case):
    module, inputs = case.make().eval(), case.inputs(2)
    with torch.autocast("cpu", torch.bfloat16):
        output = first(module(*inputs))
    close(output.float(), module(*inputs), 0.1)


def test_one_graph(case):
    module, inputs = case.make().eval(), case.inputs(2)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=False)
    close(compiled(*inputs), module(*inputs))


def test_export(case):
    module, inputs = case.make().eval(), case.inputs(2)
    exported = torch.export.export(module, inputs).module()
    close(exported(*inputs), module(*inputs))


def test_layout_of_the_input_does_not_matter(case):
    module, inputs = case.make().eval(), case.inputs(2)
    strided = [torch.empty(*x.shape, 2).select(-1, 1).copy_(x) for x in inputs]
    close(module(*strided), module(*inputs))


def test_samples_do_not_see_each_other(case):
    module, inputs = case.make().eval(), case.inputs(3)
    close(first(module(*(x[1:2] for x in inputs))), first(module(*inputs))[1:2])


def test_an_empty_batch(case):
    module, inputs = case.make().eval(), case.inputs(0)
    output = first(module(*inputs))
    assert output.shape[0] == 0
    assert output.shape[1:] == first(module(*case.inputs(2))).shape[1:]


def test_every_parameter_gets_a_gradient(case):
    module, inputs = case.make().train(), case.inputs(2)
    outputs = module(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    sum((y * torch.randn_like(y)).sum() for y in outputs).backward()
    assert [name for name, p in module.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []


def test_inputs_are_left_alone(case):
    module, inputs = case.make().eval(), case.inputs(2)
    kept = [x.clone() for x in inputs]
    module(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(inputs, kept, strict=True))


def test_inference_mode_does_not_spoil_a_later_backward(case):
    module, inputs = case.make(), case.inputs(2)
    with torch.inference_mode():
        module.eval()(*inputs)
    first(module.train()(*inputs)).sum().backward()


def test_same_seed_same_module(case):
    torch.manual_seed(3)
    a = case.make()
    torch.manual_seed(3)
    b = case.make()
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda(case):
    module, inputs = case.make().eval(), case.inputs(2)
    expected = first(module(*inputs))
    output = first(module.cuda()(*(x.cuda() for x in inputs)))
    assert output.is_cuda
    torch.testing.assert_close(output.cpu(), expected, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("use", [1, 2, 3])
def test_the_loss_is_one_graph(use):
    criterion = mt.AUPriorLoss(pos_weight=mt.au_pos_weight())
    inputs = [torch.randn(3, 7), torch.tensor([0, 6, -100]), torch.randn(3, 18), torch.rand(3, 18)][: use + 1]
    compiled = torch.compile(criterion, fullgraph=True, backend="inductor")
    torch.testing.assert_close(compiled(*inputs), criterion(*inputs))
