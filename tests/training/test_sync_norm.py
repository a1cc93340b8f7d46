import copy

import pytest
import torch
from ranks import on_ranks
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import mertools as mt


def net(momentum=0.1):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, momentum=momentum), nn.ReLU(), nn.Conv2d(5, 7, 3),
        nn.BatchNorm2d(7, affine=False), nn.Flatten(), nn.Linear(7 * 49, 11), nn.BatchNorm1d(11), nn.Linear(11, 2),
    )  # fmt: skip


def clips():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 7, 3, 11, 11, generator=generator) + torch.arange(7.0).view(7, 1, 1, 1)


def trained(model, parts, total, world=1):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    for part in parts:
        loss = model(part).square().sum() * world / total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def on_one_of_two(rank, world, momentum):
    model = mt.sync_batch_norm(net(momentum))
    parts = [batch[rank::world] for batch in clips()]  # 4 clips and 3
    wrapped = DistributedDataParallel(model)
    trained(wrapped, parts, 7, world)
    return model.state_dict(), model.eval()(clips()[0]).detach()


@pytest.mark.parametrize("momentum", [0.1, None])
def test_training_on_two_ranks_equals_training_on_one(momentum):
    alone = net(momentum)
    trained(alone, clips(), 7)
    expected = alone.state_dict(), alone.eval()(clips()[0]).detach()
    first, second = on_ranks(on_one_of_two, momentum)
    for state, output in (first, second):
        assert state.keys() == expected[0].keys()
        for name, value in state.items():
            torch.testing.assert_close(
                value, expected[0][name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )
        torch.testing.assert_close(output, expected[1], rtol=1e-4, atol=1e-4)


def test_without_a_process_group_it_is_plain_batch_norm():
    model, plain = mt.sync_batch_norm(net()), net()
    x = clips()[0]
    assert torch.equal(model(x), plain(x))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), plain.state_dict().values(), strict=True))
    assert torch.equal(model.eval()(x), plain.eval()(x))
    assert isinstance(copy.deepcopy(model)[1], type(model[1]))


def test_parameters_stay_the_optimisers():
    model = net()
    before = list(model.parameters())
    assert all(a is b for a, b in zip(mt.sync_batch_norm(model).parameters(), before, strict=True))
    single = nn.BatchNorm2d(3).eval()
    converted = mt.sync_batch_norm(single)
    assert converted.weight is single.weight
    assert not converted.training
    assert mt.sync_batch_norm(converted) is converted


def test_no_module():
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got int"):
        mt.sync_batch_norm(3)


class Shared(nn.Module):
    """One batch norm in two places of a block, and in a third of another."""

    def __init__(self):
        super().__init__()
        self.first = self.second = nn.BatchNorm3d(3)
        self.last = nn.Sequential(self.first)

    def forward(self, x):
        return self.last(self.second(2 + 3 * self.first(x)))


def shared_on_one_of_two(rank, world):
    model = mt.sync_batch_norm(Shared())
    output = model(volumes()[rank::world])
    return output.detach(), model.state_dict()


def volumes():
    return torch.randn(5, 3, 2, 7, 7, generator=torch.Generator().manual_seed(2)) * torch.arange(1.0, 6).view(
        5, 1, 1, 1, 1
    )


def test_a_layer_in_several_places_stays_one_layer():
    model = mt.sync_batch_norm(Shared())
    assert model.first is model.second is model.last[0]
    alone = Shared()
    expected = alone(volumes()).detach()
    for rank, (output, state) in enumerate(on_ranks(shared_on_one_of_two)):
        torch.testing.assert_close(output, expected[rank::2], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(state, alone.state_dict(), rtol=1e-4, atol=1e-5)


def evaluated_on_the_first_of_two(rank, world):
    norm = mt.sync_batch_norm(nn.BatchNorm1d(3, track_running_stats=False)).eval()
    return norm(clips()[0, :, :, 0, 0]).detach() if rank == 0 else None


def test_in_evaluation_no_rank_waits_for_another():
    """A rank may have no clip of the last batch, and a layer that tracks nothing takes the statistics of its batch."""
    plain = nn.BatchNorm1d(3, track_running_stats=False).eval()
    assert torch.equal(on_ranks(evaluated_on_the_first_of_two)[0], plain(clips()[0, :, :, 0, 0]).detach())


class NormAndActivation(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


def test_a_norm_with_a_forward_of_its_own_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 5, 1), NormAndActivation(5))
    with pytest.raises(TypeError, match="1 is a NormAndActivation with a forward of its own"):
        mt.sync_batch_norm(model)
    assert type(model[1]) is NormAndActivation
