"""The checks of the contract, each written once; a case of ``contract.py`` leaves some out by name, with the reason."""

import copy
import io
import pickle
import threading
import warnings
from collections.abc import Callable

import pytest
import torch
from contract import ROOT, Call, Case, Keywords
from torch import nn
from torch.func import functional_call, stack_module_state
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

CHECKS: dict[str, Callable[[Case], None]] = {}


def check(run):
    CHECKS[run.__name__] = run
    return run


# --- helpers --------------------------------------------------------------------------------------------------------


def leaves(output):
    """The tensors of an output; numbers count as tensors."""
    found = [x for x in tree_leaves(output) if x is not None]
    return [x if isinstance(x, torch.Tensor) else torch.tensor(x, dtype=torch.float64) for x in found]


def close(got, expected, tolerance=1e-5):
    got, expected = leaves(got), leaves(expected)
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance, check_dtype=False, equal_nan=True)


def same(got, expected):
    close(got, expected, 0)


def cast(inputs, dtype):
    return tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)


def made(case, b=2, t=11, *, dtype=torch.float32):
    """A module in evaluation and its inputs; running statistics and norms that are not 0 and 1."""
    module = case.make()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.running_mean.uniform_(-0.5, 0.5)
                part.running_var.uniform_(0.5, 2)
    return module.eval().to(dtype), cast(case.inputs(b, t), dtype)


def with_grad(case, inputs):
    return tuple(
        x.detach().clone().requires_grad_(x.is_floating_point() and i not in case.fixed) for i, x in enumerate(inputs)
    )


def scalar(output):
    """A number that depends on every element of the output, each in its own way."""
    total = 0
    for x in leaves(output):
        if x.is_floating_point() and x.requires_grad:
            total = total + (x * torch.linspace(0.5, 1.5, x.numel(), dtype=x.dtype).view(x.shape)).sum()
    return total


def slopes(case, module, inputs):
    """Of all inputs and parameters."""
    inputs = with_grad(case, inputs)
    module.zero_grad()
    scalar(module(*inputs)).backward()
    return [x.grad for x in inputs if x.requires_grad] + [p.grad for p in module.parameters()]


# --- numbers --------------------------------------------------------------------------------------------------------


@check
def oracle(case):
    """Equal to the definition written out, or to published numbers."""
    if isinstance(case.oracle, str):  # it has a file of its own
        file, _, name = case.oracle.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text()
        return
    module, inputs = made(case, 3, 11, dtype=torch.float64)
    with torch.no_grad():
        close(module(*inputs), case.oracle(module, *inputs), 1e-6)


@check
def function(case):
    """The module is the function under it."""
    module, inputs = made(case)
    close(module(*inputs), case.function(module, *inputs), case.tolerance)


@check
def gradients(case):
    """Gradcheck and gradgradcheck in float64, inputs and parameters."""
    module, inputs = made(case, 2, 5, dtype=torch.float64)
    inputs = with_grad(case, inputs)

    def run(*inputs):
        return tuple(x for x in leaves(module(*inputs)) if x.is_floating_point())

    with sdpa_kernel(SDPBackend.MATH):  # PyTorch's other attention kernels have no second derivative
        assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
        assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)
    parameters = [p for p in module.parameters() if p.requires_grad]
    if parameters:
        step = [torch.randn_like(p) for p in parameters]
        scalar(module(*inputs)).backward()
        slope = sum((p.grad * s).sum() for p, s in zip(parameters, step, strict=True))

        def moved(eps):
            with torch.no_grad():
                for p, s in zip(parameters, step, strict=True):
                    p += eps * s
            value = scalar(module(*inputs)).detach()
            with torch.no_grad():
                for p, s in zip(parameters, step, strict=True):
                    p -= eps * s
            return value

        torch.testing.assert_close((moved(1e-6) - moved(-1e-6)) / 2e-6, slope, rtol=1e-4, atol=1e-6)


@check
def types(case):
    """float32, float64, bfloat16 and float16: cast, and under autocast."""
    module, inputs = made(case)
    kind = [x.is_floating_point() for x in leaves(module(*inputs))]
    exact = leaves(copy.deepcopy(module).double()(*cast(inputs, torch.float64)))
    close(module(*inputs), [x.to(y.dtype) for x, y in zip(exact, leaves(module(*inputs)), strict=True)], 1e-4)
    assert all(x.dtype == torch.float64 for x, floats in zip(exact, kind, strict=True) if floats)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            got = leaves(module(*inputs))
        close([x.double() for x in got], [x.double() for x in exact], case.sixteen)
        got = leaves(copy.deepcopy(module).to(dtype)(*cast(inputs, dtype)))
        compared = [i for i in range(len(got)) if i not in case.rounded]
        close([got[i].double() for i in compared], [exact[i].double() for i in compared], 2 * case.sixteen)


@check
def layouts(case):
    """Strided, transposed, channels-last and expanded inputs."""
    module, inputs = made(case)
    expected = module(*inputs)
    strided = [torch.empty(*x.shape, 2, dtype=x.dtype).select(-1, 1).copy_(x) for x in inputs]
    close(module(*strided), expected, case.tolerance)
    turned = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    close(module(*turned), expected, case.tolerance)
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    last = [x.contiguous(memory_format=formats.get(x.ndim, torch.contiguous_format)) for x in inputs]
    close(module(*last), expected, case.tolerance)
    whole = _whole(case, inputs)
    shared = [x if i in whole else x[:1].expand(5, *x.shape[1:]) for i, x in enumerate(inputs)]
    close(module(*shared), module(*[x.contiguous() for x in shared]), case.tolerance)


@check
def empty(case):
    """A batch of no clips."""
    module, inputs = made(case)
    none = leaves(module(*case.inputs(0, 11)))
    for x, y in zip(none, leaves(module(*inputs)), strict=True):
        assert x.shape == (0, *y.shape[1:]) if y.ndim else bool(torch.isfinite(x))
        assert x.dtype == y.dtype


@check
def batch(case):
    """A clip does not see the others of its batch; the inputs stay as they were."""
    module, inputs = made(case, 3)
    kept = [x.clone() for x in inputs]
    whole = leaves(module(*inputs))
    same(list(inputs), kept)
    shared = _whole(case, inputs)
    some = [x if i in shared else x[1:2] for i, x in enumerate(inputs)]
    close([x[1:2] for x in whole], module(*some), case.tolerance)
    order = [x if i in shared else x[[2, 0, 1]] for i, x in enumerate(inputs)]
    close([x[[2, 0, 1]] for x in whole], module(*order), case.tolerance)


def _whole(case, inputs):
    """Inputs without a batch axis: decays."""
    return [i for i in case.fixed if inputs[i].ndim == 1]


@check
def padding(case):
    """Padding is not read: NaN in it, more of it, none of it."""
    module, (x, *others, counts) = made(case, 3)
    counts = counts.clamp(max=x.shape[1])
    filled = x.clone()
    for clip, n in zip(filled, counts.tolist(), strict=True):
        clip[n:] = torch.nan
    expected = leaves(module(x, *others, counts))
    close(module(filled, *others, counts), expected, case.tolerance)
    longer = torch.cat([filled, torch.full_like(x[:, :4], torch.nan)], 1)
    for a, b in zip(leaves(module(longer, *others, counts)), expected, strict=True):
        close(a[:, : x.shape[1]] if a.shape != b.shape else a, b, case.tolerance)
    n = int(counts[-1])
    for a, b in zip(leaves(module(x[-1:, :n], *(y[-1:] for y in others), counts[-1:])), expected, strict=True):
        close(a, b[-1:, :n] if a.shape != b[-1:].shape else b[-1:], case.tolerance)
    if any(y.requires_grad for y in expected):
        filled.requires_grad_()
        scalar(module(filled, *others, counts)).backward()
        assert bool(torch.isfinite(filled.grad).all())


# --- states ---------------------------------------------------------------------------------------------------------


@check
def copies(case):
    """state_dict, pickle, deepcopy, torch.save and load(weights_only=True), to(dtype) and back."""
    module, inputs = made(case)
    expected = module(*inputs)
    same(copy.deepcopy(module)(*inputs), expected)
    same(pickle.loads(pickle.dumps(module))(*inputs), expected)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh = case.make().eval()
    fresh.load_state_dict(torch.load(file, weights_only=True), strict=True)
    same(fresh(*inputs), expected)
    fresh = case.make().eval()
    fresh.load_state_dict(module.state_dict(), strict=True, assign=True)
    same(fresh(*inputs), expected)
    back = copy.deepcopy(module).to("cpu", torch.float64).to(torch.float32)
    close(back(*inputs), expected, 1e-6)
    torch.manual_seed(3)
    first = case.make().state_dict()
    torch.manual_seed(3)
    same(list(case.make().state_dict().values()), list(first.values()))


@check
def switches(case):
    """Evaluation draws and changes nothing; train() and eval() switch, there and back."""
    module, inputs = made(case, 3)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    seed = torch.get_rng_state()
    expected = module(*inputs)
    same(module(*inputs), expected)
    assert torch.equal(torch.get_rng_state(), seed)
    same(list(module.state_dict().values()), list(before.values()))
    module.train()
    assert all(part.training for part in module.modules())
    torch.manual_seed(1)
    first = leaves(module(*inputs))
    assert all(bool(torch.isfinite(x).all()) for x in first if x.is_floating_point())
    module.load_state_dict(before)
    torch.manual_seed(1)
    close(module(*inputs), first, 1e-6)
    changed = {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert all(name.endswith(statistics) for name in changed)
    assert bool(changed) == any(isinstance(p, nn.modules.batchnorm._BatchNorm) for p in module.modules())
    module.load_state_dict(before)
    same(module.eval()(*inputs), expected)


@check
def meta(case):
    """Made on the device `meta`, then to_empty and load_state_dict."""
    module, inputs = made(case)
    expected = module(*inputs)
    with torch.device("meta"):
        empty = case.make().eval()
    assert all(x.is_meta for x in [*empty.parameters(), *empty.buffers()])
    torch.use_deterministic_algorithms(True)  # fills what is allocated with NaN
    try:
        filled = copy.deepcopy(empty).to_empty(device="cpu")
        filled.load_state_dict(module.state_dict(), strict=True)
        same(filled(*inputs), expected)
        empty.load_state_dict(module.state_dict(), strict=True, assign=True)
        if not any(x.is_meta for x in empty.buffers()):
            same(empty(*inputs), expected)
    finally:
        torch.use_deterministic_algorithms(False)


@check
def reset(case):
    """Made on `meta`, then to_empty and every layer's reset_parameters: as if made anew."""
    _, inputs = made(case)
    torch.manual_seed(5)
    fresh = case.make().state_dict()
    with torch.device("meta"):
        empty = case.make().eval()
    torch.use_deterministic_algorithms(True)
    try:
        drawn = empty.to_empty(device="cpu")
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(bool(parameter.isnan().all()) for parameter in drawn.parameters())
    drawn.apply(lambda part: part.reset_parameters() if hasattr(part, "reset_parameters") else None)
    assert set(drawn.state_dict()) == set(fresh)
    for name, value in drawn.state_dict().items():
        assert value.shape == fresh[name].shape
        if value.is_floating_point():
            assert bool(torch.isfinite(value).all()), name
        constant = name in dict(drawn.named_buffers()) or (fresh[name].numel() > 1 and len(fresh[name].unique()) == 1)
        if constant:  # decays, running statistics, ones and zeros
            assert torch.equal(value, fresh[name]), name
        elif fresh[name].numel() > 30:
            assert 0.6 < float(value.double().std() / fresh[name].double().std()) < 1.6, name
    drawn(*inputs)


@check
def average(case):
    """An average of weights (EMA), weight norm and parametrisation of its layers."""
    module, inputs = made(case)
    ema = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    ema.update_parameters(module)
    same(ema.eval()(*inputs), module(*inputs))
    before = [p.detach().clone() for p in ema.module.parameters()]
    with torch.no_grad():
        for p in module.parameters():
            p.add_(1)
    ema.update_parameters(module)
    for p, old in zip(ema.module.parameters(), before, strict=True):
        torch.testing.assert_close(p, old + 0.1, atol=1e-5, rtol=1e-5)
    module, inputs = made(case)
    expected = module(*inputs)
    for part in list(module.modules()):
        if isinstance(part, (nn.Linear, nn.Conv2d)) and part.weight.requires_grad:
            nn.utils.parametrizations.weight_norm(part)
    close(module(*inputs), expected, 1e-4)


# --- how PyTorch is used --------------------------------------------------------------------------------------------


@check
def deterministic(case):
    """use_deterministic_algorithms: twice the same, and nothing is read before it was written."""
    module, inputs = made(case)
    expected = module(*inputs)
    torch.use_deterministic_algorithms(True)  # what torch.empty gives is NaN then
    try:
        first = module(*inputs)
        close(first, expected, case.tolerance)
        same(module(*inputs), first)
        if any(x.requires_grad for x in leaves(first)):
            for part in module.modules():
                part.training = True
            torch.manual_seed(2)
            once = slopes(case, module, inputs)
            torch.manual_seed(2)
            again = slopes(case, module, inputs)
            assert all(g is None or bool(torch.isfinite(g).all()) for g in once)
            same([g for g in again if g is not None], [g for g in once if g is not None])
    finally:
        torch.use_deterministic_algorithms(False)


@check
def modes(case):
    """inference_mode, no_grad, inputs without gradient, another default dtype; every parameter gets a gradient."""
    module, inputs = made(case)
    with torch.inference_mode():
        expected = leaves(module(*inputs))
    with torch.no_grad():
        close(module(*inputs), expected, case.tolerance)
    close(module(*inputs), expected, case.tolerance)  # what inference_mode left does not spoil a backward
    if any(x.requires_grad for x in leaves(module(*inputs))):
        given = [p.grad for p in module.parameters()]
        assert all(g is None for g in given)
        scalar(module(*inputs)).backward()
        assert [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None] == []
    elif not any(p.requires_grad for p in module.parameters()):
        assert not any(x.requires_grad for x in leaves(module(*inputs)))
    torch.set_default_dtype(torch.float64)
    try:
        close(module(*inputs), expected, case.tolerance)
        assert [x.dtype for x in leaves(module(*inputs))] == [x.dtype for x in expected]
        wide = case.make().eval()
        assert all(p.dtype == torch.float64 for p in wide.parameters())
        output = leaves(wide(*cast(inputs, torch.float64)))
        assert all(x.dtype == torch.float64 for x in output if x.is_floating_point())
    finally:
        torch.set_default_dtype(torch.float32)


@check
def hooks(case):
    """Forward and backward hooks are called for every layer and change nothing by being there."""
    module, inputs = made(case)
    expected = module(*inputs)
    seen, back = [], []
    handles = []
    for name, part in module.named_modules():
        if part is not module and name and not list(part.children()) and list(part.parameters(recurse=False)):
            handles.append(part.register_forward_hook(lambda m, i, o, name=name: seen.append(name)))
            handles.append(part.register_full_backward_hook(lambda m, i, o, name=name: back.append(name)))
    handles.append(module.register_forward_hook(lambda m, i, o: None))
    got = module(*with_grad(case, inputs))
    close(got, expected, case.tolerance)
    scalar(got).backward()
    leaf = [
        name for name, part in module.named_modules()
        if part is not module and not list(part.children()) and list(part.parameters(recurse=False))
    ]  # fmt: skip
    assert set(seen) >= set(leaf)
    trained = [name for name in leaf if any(p.requires_grad for p in module.get_submodule(name).parameters())]
    assert set(back) >= set(trained)
    for handle in handles:
        handle.remove()


@check
def checkpointing(case):
    """torch.utils.checkpoint around it, reentrant and not: the same gradients."""
    module, inputs = made(case)
    expected = slopes(case, module, inputs)
    for reentrant in (False, True):
        given = with_grad(case, inputs)
        module.zero_grad()
        scalar(checkpoint(module, *given, use_reentrant=reentrant)).backward()
        got = [x.grad for x in given if x.requires_grad] + [p.grad for p in module.parameters()]
        assert [g is None for g in got] == [g is None for g in expected]
        close([g for g in got if g is not None], [g for g in expected if g is not None], 1e-5)


@check
def threads(case):
    """Several threads at once on one module."""
    module, _ = made(case)
    work = [cast(case.inputs(2, 11 + i), torch.float32) for i in range(3)]
    expected = [module(*given) for given in work]
    failures = []

    def run(i):
        try:
            for _ in range(4):
                close(module(*work[i]), expected[i], 1e-5)
        except BaseException as error:
            failures.append(error)

    crowd = [threading.Thread(target=run, args=(i,)) for i in range(3)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert failures == []


@check
def vmap(case):
    """torch.func: functional_call, grad, vmap over batches (of one `lengths`) and over an ensemble."""
    module, inputs = made(case)
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    close(functional_call(module, state, inputs), module(*inputs), case.tolerance)
    whole = _whole(case, inputs)
    shared = [*whole, len(inputs) - 1] if case.lengths else whole
    more = [case.inputs(2, 11) for _ in range(3)]
    stacked = [x[0] if i in shared else torch.stack(x) for i, x in enumerate(zip(*more, strict=True))]
    axes = tuple(None if i in shared else 0 for i in range(len(stacked)))
    with sdpa_kernel(SDPBackend.MATH):  # the others have no rule for vmap
        got = leaves(torch.func.vmap(module, in_dims=axes, randomness="error")(*stacked))
    one = [leaves(module(*[x if a is None else x[i] for x, a in zip(stacked, axes, strict=True)])) for i in range(3)]
    close(got, [torch.stack(x) for x in zip(*one, strict=True)], case.tolerance)
    trained = {k: v for k, v in module.named_parameters() if v.requires_grad}
    if case.lengths and torch.__version__.startswith("2.5."):
        pytest.skip("PyTorch 2.5 can't look at lengths within torch.func.grad")
    if trained:
        expected = slopes(case, module, inputs)[-len(trained) :]
        rest = dict(module.named_buffers())
        got = torch.func.grad(lambda p: scalar(functional_call(module, {**p, **rest}, inputs)))(trained)
        close(list(got.values()), expected, 1e-4)
        ensemble = [made(case)[0] for _ in range(2)]
        weights, buffers = stack_module_state(ensemble)
        with sdpa_kernel(SDPBackend.MATH):
            got = torch.func.vmap(lambda p, b: functional_call(module, (p, b), inputs))(weights, buffers)
        close(got, [torch.stack(x) for x in zip(*(leaves(m(*inputs)) for m in ensemble), strict=True)], case.tolerance)


@check
def trace(case):
    """torch.jit.trace, run on other values and another batch; a trace keeps the number of frames."""
    if "AUPriorLoss" in case.covers and torch.__version__.startswith("2.5."):
        pytest.skip("PyTorch 2.5 can't trace a binary cross entropy with weights")
    module, inputs = made(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes are looked at to check them, which the tracer remarks on
        traced = torch.jit.trace(module, inputs, check_trace=False, strict=False)
    for b in (2, 3):
        other = case.inputs(b, 11)
        close(traced(*other), module(*other), case.tolerance)


# --- compilers ------------------------------------------------------------------------------------------------------

SIZES = ((6, 11), (2, 13), (5, 17), (7, 19))  # the first batch has a size that no other axis has


@check
def compiled(case):
    """torch.compile(fullgraph=True), dynamic=None and True: other batches and lengths without a new graph."""
    if "AUPriorLoss" in case.covers and torch.__version__.startswith("2.5."):
        pytest.skip("PyTorch 2.5 can't compile a binary cross entropy with weights for any batch")
    from torch._dynamo.testing import CompileCounterWithBackend

    for dynamic, backend in ((None, "eager"), (True, "aot_eager")):
        torch._dynamo.reset()
        counter = CompileCounterWithBackend(backend)
        module, _ = made(case)
        quick, graphs = torch.compile(module, fullgraph=True, dynamic=dynamic, backend=counter), []
        for b, t in SIZES:
            inputs = cast(case.inputs(b, t), torch.float32)
            close(quick(*inputs), module(*inputs), case.tolerance)
            graphs.append(counter.frame_count)
        # With dynamic=None the second size makes the sizes symbols; then, or from the start, one graph is for all.
        assert graphs[-1] == graphs[1 if dynamic is None else 0], f"dynamic={dynamic}: graphs after each size {graphs}"


@check
def export(case):
    """torch.export with any batch and number of frames, run at others."""
    if not hasattr(torch.export.Dim, "DYNAMIC"):
        pytest.skip("needs PyTorch 2.6")
    module, inputs = made(case, 3, 11)
    whole = _whole(case, inputs)
    shapes = tuple(None if i in whole else {0: torch.export.Dim.DYNAMIC} for i in range(len(inputs)))
    _, other = made(case, 3, 13)
    for shape, x, y in zip(shapes, inputs, other, strict=True):
        for axis in range(x.ndim):
            if x.shape[axis] != y.shape[axis]:
                shape[axis] = torch.export.Dim.DYNAMIC
    program = torch.export.export(module, inputs, dynamic_shapes=(shapes,) if _star(module) else shapes, strict=False)
    for b, t in SIZES:
        given = case.inputs(b, t)
        close(program.module()(*given), module(*given), case.tolerance)


def _star(module):
    """Whether its forward takes ``*inputs``, which is one argument to export."""
    return isinstance(module, (Call, Keywords)) or type(module).__name__ == "WithAUHead"


@check
def ranks(case):
    """DistributedDataParallel and FSDP2 on two processes: a step as one process takes with the whole batch.

    In test_contract_ranks.py, one launch for all.
    """


# --- which applies --------------------------------------------------------------------------------------------------


def applies(case, name):
    """None, or why a check is left out."""
    if name == "function" and case.function is None:
        return "no other way to call it"
    if name == "padding" and not case.lengths:
        return "no lengths"
    return case.no.get(name)
