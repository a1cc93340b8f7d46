import copy
import pickle

import numpy as np
import pytest
import torch
from ranks import on_ranks
from torch import nn

import mertools as mt

SCORES = {"uf1": (mt.UF1, mt.uf1), "uar": (mt.UAR, mt.uar), "war": (mt.WAR, mt.war)}


def labels(n=61, e=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(n, e, generator=random), torch.randint(0, e, (n,), generator=random)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("absent", ["skip", "zero"])
def test_batches_are_pooled(name, absent):
    meter, score = SCORES[name]
    logits, target = labels()
    metric = meter(7, absent=absent)  # two classes that nobody shows
    for start in range(0, 61, 10):
        part = slice(start, start + 10)
        padded = nn.functional.pad(logits[part], (0, 2), value=-9.0)
        preds = padded if start % 20 else padded.argmax(1)
        assert metric(preds, target[part]) == pytest.approx(
            score(predicted=padded, target=target[part], num_classes=7, absent=absent)
        )
    whole = score(predicted=logits.argmax(1), target=target, num_classes=7, absent=absent)
    assert metric.compute() == pytest.approx(whole)
    assert metric.compute().dtype == torch.float32
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert other.compute() == metric.compute()
    metric.reset()
    metric.update([0], [0])
    assert metric.compute() == pytest.approx(1 / 7 if absent == "zero" and name != "war" else 1)


def test_the_names_and_the_order_of_torchmetrics():
    metric = mt.UAR(num_classes=2)
    metric.update(preds=[0, 0, 1, 1], target=[0, 0, 0, 1])
    assert metric.compute() == pytest.approx(5 / 6)


def test_how_it_is_printed():
    assert repr(mt.UF1(np.int64(2))) == "UF1(num_classes=2, absent='skip')"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_it_counts_where_the_predictions_are():
    metric = mt.UF1(2)
    metric.update(torch.tensor([0, 1]).cuda(), torch.tensor([0, 1]))
    assert metric.compute().is_cuda


def count(rank, world):
    logits, target = labels()
    metric = mt.UF1(5)
    metric.update(logits[rank::world], target[rank::world])
    return float(metric.compute())


def test_processes_count_together():
    logits, target = labels()
    assert on_ranks(count) == pytest.approx([mt.uf1(predicted=logits, target=target)] * 2)


def test_what_is_refused():
    with pytest.raises(ValueError, match="num_classes must be a positive integer"):
        mt.UAR(0)
    with pytest.raises(ValueError, match="absent must be one of"):
        mt.UAR(2, absent="ignore")
    with pytest.raises(ValueError, match="confusion must count at least one clip"):
        mt.UAR(2).compute()
    metric = mt.WAR(2, absent="error")
    with pytest.raises(ValueError, match=r"target\[1\] is 2"):
        metric.update([0, 1], [0, 2])
    metric.update([0], [0])
    with pytest.raises(ValueError, match="war is 0/0 for the classes 1"):
        metric.compute()
