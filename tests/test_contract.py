"""Every public module and tensor function is held to the contract: cases in contract.py, checks in contract_checks.py.

Compilers are in test_contract_compile.py, processes in test_contract_ranks.py, so that they run beside each other.
"""

import copy
import threading

import pytest
import torch
from contract import CASES, NO_CASE
from contract_checks import CHECKS, applies, close, leaves, made
from torch import nn

import mertools as mt

COMPILERS = ("compiled", "export")
PAIRS = [
    (check, name)
    for name, case in CASES.items()
    for check in CHECKS
    if check not in (*COMPILERS, "ranks") and applies(case, check) is None
]


@pytest.mark.parametrize(("check", "name"), PAIRS, ids=lambda part: part)
def test_contract(check, name):
    try:
        CHECKS[check](CASES[name])
    finally:
        torch.set_default_dtype(torch.float32)


def test_every_public_name_has_a_case_or_a_reason():
    covered = {public for case in CASES.values() for public in case.covers.split()}
    assert covered.isdisjoint(NO_CASE)
    assert sorted(covered | set(NO_CASE)) == sorted(mt.__all__)


def test_reasons_are_for_checks_that_exist():
    for case in CASES.values():
        assert set(case.no) | set(case.long) <= set(CHECKS)
        assert all(len(reason.split()) > 1 for reason in case.no.values())


# Left out because there is nothing to see, where the check would pass without seeing it.
EMPTY = ("a function: no state", "no parameters")


@pytest.mark.parametrize(
    ("name", "check"),
    [
        (name, check)
        for name, case in CASES.items()
        for check, reason in case.no.items()
        if reason not in EMPTY and check not in (*COMPILERS, "ranks")
    ],
)
def test_what_is_left_out_does_not_hold(name, check):
    """A reason that holds no longer has to go."""
    try:
        with pytest.raises(Exception):  # noqa: B017, PT011
            CHECKS[check](CASES[name])
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_default_dtype(torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", CASES)
def test_cuda(name):
    module, inputs = made(CASES[name])
    expected = module(*inputs)
    on_gpu = leaves(copy.deepcopy(module).cuda()(*[x.cuda() for x in inputs]))
    close([x.cpu() for x in on_gpu], expected, 2e-3)


# --- what the contract found ----------------------------------------------------------------------------------------


def test_a_host_with_a_part_named_host_loads_as_well():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.host, self.fc = nn.Linear(5, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(self.host(x))

    model = mt.attach_au_head(Named(), "fc")
    state = {k: v + 1 for k, v in model.state_dict().items()}
    assert sorted(state) == [
        "au_head.linear.bias",
        "au_head.linear.weight",
        "fc.bias",
        "fc.weight",
        "host.bias",
        "host.weight",
    ]
    model.load_state_dict(state)
    assert torch.equal(model.host.host.weight, state["host.weight"])
    by_module = {f"host.{k}" if not k.startswith("au_head") else k: v + 1 for k, v in state.items()}
    model.load_state_dict(by_module)  # as torch.distributed.checkpoint names them
    assert torch.equal(model.host.host.weight, state["host.weight"] + 1)


def test_two_threads_with_au_heads_do_not_mix_their_features():
    """The head's features used to be kept on the module: a second thread's forward took them away."""
    host = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model = mt.attach_au_head(host, "1", num_aus=5)
    meet = threading.Barrier(2)

    def wait(*_):
        meet.wait()

    host[0].register_forward_hook(wait)
    x = torch.randn(2, 4, 3)
    got = {}

    def run(i):
        got[i] = model(x[i])

    crowd = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    for i in range(2):
        torch.testing.assert_close(got[i][1], model.au_head(x[i] @ host[0].weight.T + host[0].bias))


def test_manhattan_decays_keep_their_precision_when_weights_are_cast():
    layer = mt.ManhattanRetention(12, 3)
    decay = layer.log_decay.clone()
    assert torch.equal(layer.bfloat16().log_decay, decay)
    assert layer.log_decay.dtype == torch.float32
    assert mt.ManhattanRetention(12, 3, dtype=torch.bfloat16).log_decay.dtype == torch.float32


def test_a_new_class_weight_is_not_undone_by_a_move():
    """What a user sets later (a schedule of weights) is what stays; only memory without values is filled again."""
    loss = mt.AUPriorLoss(class_weight=torch.ones(7))
    loss.class_weight = torch.arange(7.0)
    assert loss.to(torch.float64).class_weight.tolist() == list(range(7))
    torch.testing.assert_close(loss.to("meta").to_empty(device="cpu").prior, mt.au_prior().double())


def test_per_clip_gradients_of_the_loss():
    """vmap over clips used to be refused: labels are looked at, and many at once have no value to look at."""
    criterion = mt.AUPriorLoss(reduction="none")
    logits, target, heads, labels = torch.randn(3, 7), torch.tensor([0, 3, 6]), torch.randn(3, 18), torch.rand(3, 18)

    def one(*clip):
        return criterion(*(x[None] for x in clip))[0]

    got = torch.func.vmap(torch.func.grad(one))(logits, target, heads, labels)
    logits.requires_grad_()
    criterion(logits, target, heads, labels).sum().backward()
    torch.testing.assert_close(got, logits.grad)


@pytest.mark.parametrize("use", [1, 2, 3])
def test_a_training_loop_with_a_scaler(use):
    """float16 autocast with a GradScaler on the CPU: the loss falls, and no step is skipped for an infinite gradient."""
    torch.manual_seed(0)
    model = mt.attach_au_head(nn.Sequential(nn.Linear(11, 13), nn.ReLU(), nn.Linear(13, 7)), "2")
    criterion, x, target = mt.AUPriorLoss(), torch.randn(29, 11), torch.arange(29) % 7
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.float16):
            logits, au_logits = model(x)
            loss = criterion(logits, target, *[au_logits, torch.ones(29, 18)][: use - 1])
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1
    assert scaler.get_scale() == 2.0**10


def test_checkpoint_options_give_the_same_gradients():
    """``checkpoint=True`` of the modules that have it, against the same weights without."""
    for make, shape in (
        (lambda **k: mt.RetNetTemporal(14, 2, 7, **k), (2, 11, 14)),
        (lambda **k: mt.ManhattanRetNet(dims=(4, 8, 12, 16), drop_path=0, **k), (2, 3, 37, 29)),
    ):
        plain, kept = make(), make(checkpoint=True)
        kept.load_state_dict(plain.state_dict())
        x = torch.randn(shape)
        for module in (plain, kept):
            module(x).square().mean().backward()
        for p, q in zip(plain.parameters(), kept.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, atol=1e-6, rtol=1e-5)
