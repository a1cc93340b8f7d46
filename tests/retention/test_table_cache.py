import copy
import pickle
import threading

import torch

import mertools as mt
from mertools.retention.table_cache import TableCache


def counting(cache, source=None):
    made = []

    def get(key):
        return cache.get(key, lambda: made.append(key) or torch.full((2,), float(len(made))), source=source)

    return get, made


def test_keeps_the_last_few():
    cache = TableCache(limit=2)
    get, made = counting(cache)
    first = get("a")
    assert get("a") is first
    get("b")
    get("c")
    assert len(cache) == 2
    get("a")
    assert made == ["a", "b", "c", "a"]


def test_a_table_ends_with_its_source():
    source = torch.zeros(3)
    cache = TableCache()
    get, made = counting(cache, source)
    get("a")
    get("a")
    source.add_(1)
    get("a")
    assert len(made) == 2
    get, more = counting(cache, source.clone())
    get("a")
    assert len(more) == 1


def test_copies_start_empty():
    cache = TableCache(3)
    counting(cache)[0]("a")
    for other in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert len(other) == 0
        assert other.limit == 3


def test_tables_made_in_inference_mode_serve_a_later_backward():
    cache = TableCache()
    with torch.inference_mode():
        table = cache.get("a", lambda: torch.ones(2))
    assert not table.is_inference()


def test_nothing_is_kept_of_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    cache = TableCache()
    with FakeTensorMode():
        cache.get("a", lambda: torch.ones(2))
    assert len(cache) == 0


def test_a_backbone_keeps_few_tables_and_follows_its_decays():
    layer = mt.ManhattanRetention(8, 2)
    x = torch.randn(2, 3, 5, 8)
    before = layer(x)
    for side in range(1, 12):
        layer(torch.randn(1, side, side, 8))
    assert len(layer._tables) <= layer._tables.limit
    torch.testing.assert_close(layer(x), before, rtol=0, atol=0)
    other = mt.ManhattanRetention(8, 2, decay_init=0.5)
    state = layer.state_dict() | {"log_decay": other.log_decay}
    layer.load_state_dict(state)
    other.load_state_dict(state)
    assert not torch.equal(layer(x), before)
    torch.testing.assert_close(layer(x), other(x), rtol=0, atol=0)
    assert not any("tables" in key for key in layer.state_dict())


def test_threads_get_right_tables():
    layer = mt.ManhattanRetention(8, 2).eval()
    maps = [torch.randn(1, side, side + 1, 8) for side in range(1, 9)]
    expected = [copy.deepcopy(layer)(x).detach() for x in maps]
    wrong = []

    def work():
        for _ in range(5):
            for x, y in zip(maps, expected, strict=True):
                if not torch.allclose(layer(x).detach(), y, atol=1e-6):
                    wrong.append(x.shape)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
