"""The contract with compilers: one graph for every size (torch.compile), and one program for every size (torch.export).

The largest models are compiled with ``LONG_RUN=1`` only.
"""

import os

import pytest
import torch
from contract import CASES
from contract_checks import CHECKS, applies

import mertools as mt

PAIRS = [
    (check, name)
    for name, case in CASES.items()
    for check in ("compiled", "export")
    if applies(case, check) is None and (check not in case.long or "LONG_RUN" in os.environ)
]


@pytest.fixture(autouse=True)
def _anew():
    torch._dynamo.reset()


@pytest.mark.parametrize(("check", "name"), PAIRS, ids=lambda part: part)
def test_contract(check, name):
    CHECKS[check](CASES[name])


def test_the_loss_in_a_training_loop():
    """Inductor, integer targets, the last batch smaller: one graph more for sizes as symbols, and the same gradients."""
    criterion = mt.AUPriorLoss(pos_weight=mt.au_pos_weight())
    quick = torch.compile(criterion, fullgraph=True)
    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    with torch._dynamo.config.patch({limit: 2}):
        for b in (11, 7, 13, 3):
            inputs = [torch.randn(b, 7), torch.arange(b) % 7, torch.randn(b, 18), torch.rand(b, 18)]
            slopes = []
            for loss in (quick, criterion):
                logits = inputs[0].clone().requires_grad_()
                loss(logits, *inputs[1:]).backward()
                slopes.append(logits.grad)
            torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("use", [1, 2])
def test_the_loss_is_one_graph(use):
    criterion = mt.AUPriorLoss(pos_weight=mt.au_pos_weight())
    inputs = [torch.randn(3, 7), torch.tensor([0, 6, -100]), torch.randn(3, 18)][: use + 1]
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")  # inductor: the test above
    torch.testing.assert_close(compiled(*inputs), criterion(*inputs))
