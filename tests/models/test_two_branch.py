"""GAMDSS's two branches around networks as people wrap them: what a wrapper passes on is never taken for an apex frame."""

import copy

import pytest
import torch
from torch import nn

import mertools as mt

SMALL = {"image_size": 32, "dims": (4, 8, 12, 16), "hidden": 24, "spatial_depth": 1, "spatial_heads": 2}


def tsfmicro():
    torch.manual_seed(7)
    return mt.TSFmicro(5, **SMALL).eval()


def images():
    return torch.randn(3, 2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 4, 3)

    def forward(self, static, motion):
        return self.conv(torch.cat([static, motion], 1)).mean((2, 3))


class OtherNames(Net):
    def forward(self, x, y):
        return super().forward(x, y)


class Wrapper(nn.Module):
    """What users, EMA, DDP and FSDP do: take anything, pass it on."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, *args, **kwargs):
        return self.net(*args, **kwargs)


class ByPosition(Wrapper):
    def forward(self, x, y):
        return self.net(x, y)


class Positions(Wrapper):
    def forward(self, *args):
        return self.net(*args)


class Named(Wrapper):
    def forward(self, static, motion):
        return self.net(static, motion=motion)


class Optional(Wrapper):
    def forward(self, x, y=None, **kwargs):
        return self.net(x, y, **kwargs)


@pytest.fixture
def process_group():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


WRAPPERS = {
    "none": lambda net: net,
    "a user's": Wrapper,
    "by position": ByPosition,
    "*args": Positions,
    "named": Named,
    "optional": Optional,
    "DataParallel": nn.DataParallel,
    "AveragedModel": torch.optim.swa_utils.AveragedModel,
    "compiled": lambda net: torch.compile(net, backend="eager"),
    "by position in a user's": lambda net: Wrapper(ByPosition(net)),
    "by position, compiled": lambda net: torch.compile(ByPosition(net), backend="eager"),
    "compiled, averaged": lambda net: torch.optim.swa_utils.AveragedModel(torch.compile(net, backend="eager")),
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
    "DDP of by position": lambda net: nn.parallel.DistributedDataParallel(ByPosition(net)),
}


# A wrapper that asks for the keyword does not fit a network that has no such keyword.
PAIRS = [(b, w) for b in (tsfmicro, Net, OtherNames) for w in WRAPPERS if (b, w) != (OtherNames, "named")]


@pytest.mark.parametrize(("build", "name"), PAIRS)
def test_any_wrapper_around_any_network(build, name, process_group):
    net, wrap = build(), WRAPPERS[name]
    onset, apex, offset = images()
    if isinstance(net, mt.TSFmicro):
        wanted = net(onset, apex), net(apex, motion=apex - offset)
    else:
        wanted = net(onset, apex - onset), net(apex, apex - offset)
    model = mt.TwoBranch(wrap(copy.deepcopy(net)))
    for _ in range(2):  # the second time the way is known
        torch.testing.assert_close(model(onset, apex, offset), wanted)
    torch.testing.assert_close(model.front(onset, apex), wanted[0])
    torch.testing.assert_close(copy.deepcopy(mt.TwoBranch(wrap(copy.deepcopy(net)))).front(onset, apex), wanted[0])


@pytest.mark.filterwarnings("ignore:FSDP is switching to use `NO_SHARD`", "ignore:.*FullyShardedDataParallel")
def test_fully_sharded(process_group):
    from torch.distributed.fsdp import FullyShardedDataParallel

    net = tsfmicro()
    wanted = mt.TwoBranch(net)(*images())
    sharded = FullyShardedDataParallel(copy.deepcopy(net), device_id=torch.device("cpu"), use_orig_params=True)
    torch.testing.assert_close(mt.TwoBranch(sharded)(*images()), wanted)


@pytest.mark.parametrize("wrap", [Wrapper, ByPosition, torch.optim.swa_utils.AveragedModel])
def test_two_branches_around_a_wrapper_are_compiled_whole(wrap):
    net = tsfmicro()
    model = mt.TwoBranch(wrap(net))
    wanted = mt.TwoBranch(net)(*images())
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*images()), wanted)


@pytest.mark.parametrize("attach_first", [True, False])
def test_with_an_au_head(attach_first):
    net = tsfmicro()
    plain = mt.TwoBranch(net)(*images())
    head = mt.attach_au_head(
        Wrapper(net) if attach_first else net, "net.fusion.head" if attach_first else "fusion.head"
    )
    for (logits, au_logits), wanted in zip(mt.TwoBranch(head)(*images()), plain, strict=True):
        torch.testing.assert_close(logits, wanted)
        assert au_logits.shape == (2, 18)


class Halved(Wrapper):
    def forward(self, x, y):
        return self.net(x, y / 2)


class HalvedMotion(Wrapper):
    def forward(self, x, y):
        return self.net(x, motion=y / 2)


def test_a_wrapper_that_changes_the_motion_image_must_say_that_it_is_one():
    net = tsfmicro()
    onset, apex, offset = images()
    with pytest.raises(
        RuntimeError, match=r"passed another image on as the apex frame: call this TSFmicro as .*motion="
    ):
        mt.TwoBranch(Halved(net))(onset, apex, offset)
    torch.testing.assert_close(
        mt.TwoBranch(HalvedMotion(net)).front(onset, apex), net(onset, motion=(apex - onset) / 2)
    )
    torch.testing.assert_close(net(onset, apex), net(onset, motion=apex - onset))  # nothing is left behind


class Broken(Net):
    def forward(self, static, motion):
        return nn.functional.relu(static, motion=motion)


class MotionFirst(Net):
    def forward(self, motion, static):
        return super().forward(static, motion)


def test_errors_of_the_network_are_its_own():
    with pytest.raises(TypeError, match="relu"):
        mt.TwoBranch(Broken())(*images())
    with pytest.raises(RuntimeError, match="Given groups=1"):
        mt.TwoBranch(Net())(*images()[:, :, :2])


def test_no_parameters_of_its_own():
    net = Net()
    assert list(mt.TwoBranch(net).parameters()) == list(net.parameters())


class Flow(nn.Module):
    """A host of flow: two channels of motion beside the frame."""

    def forward(self, static, motion):
        assert motion.shape == (len(static), 2, 32, 32)
        return motion.flatten(2).mean(2)


def test_a_motion_image_of_ones_own():
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    onset, apex, offset = (
        (torch.sin((x - at) / 3) / 2 + torch.sin(y / 4) / 2 + 1).div(2).expand(2, 3, 32, 32) for at in (0.0, 1.5, 0.5)
    )
    front, back = mt.TwoBranch(Flow(), motion=mt.optical_flow)(onset, apex, offset)
    assert torch.equal(front, mt.optical_flow(onset, apex).flatten(2).mean(2))
    assert torch.equal(back, mt.optical_flow(offset, apex).flatten(2).mean(2))
    assert (front[:, 0] > back[:, 0]).all()
    assert torch.equal(mt.TwoBranch(Flow(), motion=mt.optical_flow).front(onset, apex), front)
    bytes_ = [(image * 255).byte() for image in (onset, apex, offset)]
    assert mt.TwoBranch(Flow(), motion=mt.optical_flow)(*bytes_)[0].shape == (2, 2)


IMAGE = torch.zeros(1, 3, 32, 32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mt.TwoBranch(Net())(IMAGE, IMAGE, None), TypeError, "offset must be .*got NoneType"),
        (lambda: mt.TwoBranch(lambda s, m: s), TypeError, "net must be an nn.Module"),
        (lambda: mt.TwoBranch(Net())(IMAGE.byte(), IMAGE, IMAGE), TypeError, "onset must be a floating"),
        (lambda: mt.TwoBranch(Net())(IMAGE, IMAGE, IMAGE[..., :5]), ValueError, "must have one shape"),
        (lambda: mt.TwoBranch(MotionFirst()), ValueError, "net must take the frame first"),
        (lambda: mt.TwoBranch(Wrapper(MotionFirst()))(*images()), TypeError, "multiple values for argument 'motion'"),
        (lambda: mt.TwoBranch(Net(), motion=3), TypeError, "motion must be a function of two frames"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
