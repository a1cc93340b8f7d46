import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

PARITY = Path(__file__).parent / "parity"
SHARED_CLIP = Path(__file__).parents[2] / "shared" / "data" / "single_face.mp4"

# `make test` tries the same few examples every time; LONG_RUN=1 tries many, new ones, and EXAMPLES=200 so many of each.
_calm = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
settings.register_profile("quick", max_examples=25, derandomize=True, database=None, **_calm)
settings.register_profile("long", max_examples=int(os.environ.get("EXAMPLES", "2000")), print_blob=True, **_calm)
settings.load_profile("long" if "LONG_RUN" in os.environ else "quick")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_clip():
    if not SHARED_CLIP.exists():
        pytest.skip("the real clip is not part of a clone")
    return SHARED_CLIP


class Parity:
    """The published networks' weights by rule, their inputs, and what they compute (tests/parity/README.md)."""

    def __init__(self):
        self.keys, self.values = {}, {}
        for name in ("gamdss", "tsfmicro"):
            self.keys |= json.loads((PARITY / f"dev_{name}_keys.json").read_text())
            self.values |= dict(np.load(PARITY / f"dev_{name}.npz"))

    def state_dict(self, network):
        shapes = self.keys[network]
        return {k: self._fill(k, s) for k, s in shapes.items() if not k.endswith((".angle", ".decay"))}

    def image(self, name):
        values = self._random(name).standard_normal((2, 3, 224, 224))
        return torch.from_numpy(values.astype(np.float32))

    def expected(self, entry):
        return torch.as_tensor(self.values[entry])

    @staticmethod
    def _random(name):
        return np.random.RandomState(zlib.crc32(("dev" + name).encode()))

    def _fill(self, key, shape):
        if key.endswith("num_batches_tracked"):
            return torch.tensor(1)
        x = self._random(key).standard_normal(shape)
        if key.endswith("running_var"):
            x = 0.5 + 0.5 * np.abs(x)
        elif len(shape) <= 1:
            x = 0.1 * x + (1.0 if key.endswith("weight") else 0.0)
        else:
            x = x / np.sqrt(np.prod(shape[1:]))
        return torch.from_numpy(np.asarray(x, dtype=np.float32))


@pytest.fixture(scope="session")
def parity():
    return Parity()
