import math

import pytest
import torch

from mertools.retention.rotary import apply_rotary, rotary_angles, rotary_table


def test_angles_are_those_of_the_papers():
    expected = 1 / 10000 ** torch.linspace(0, 1, 7, dtype=torch.float64)
    torch.testing.assert_close(rotary_angles(7), expected, rtol=1e-14, atol=0)
    assert rotary_angles(1).tolist() == [1.0]


@pytest.mark.parametrize("t", [0, 1, 5, 64, 129, 500])
@pytest.mark.parametrize("position", [None, [0, 3], [10**5, 10**9]])
def test_the_table_has_cosines_and_sines_of_the_position(t, position):
    angle = rotary_angles(3)
    table = rotary_table(t, angle, torch.float64, position=None if position is None else torch.tensor(position))
    assert table.shape == ((t, 3) if position is None else (2, t, 3))
    for b, start in enumerate(position or [0]):
        for i in {0, t // 2, t - 1} if t else ():
            got = table[i] if position is None else table[b, i]
            for p, theta in enumerate(angle.tolist()):
                assert got[p].real.item() == pytest.approx(
                    math.cos((start + i) * theta), abs=1e-6 if start > 1e6 else 1e-10
                )
                assert got[p].imag.item() == pytest.approx(
                    math.sin((start + i) * theta), abs=1e-6 if start > 1e6 else 1e-10
                )


def test_float32_tables_are_exact_far_out():
    """A table built in float32 would be off by 2e-3 at frame 10⁵."""
    start = torch.tensor([10**5])
    exact = rotary_table(300, rotary_angles(4), torch.float64, position=start)
    torch.testing.assert_close(
        rotary_table(300, rotary_angles(4), torch.float32, position=start).to(torch.complex128),
        exact,
        atol=1e-7,
        rtol=0,
    )


@pytest.mark.parametrize("layout", ["plain", "odd offset", "odd stride", "transposed"])
def test_neighbouring_pairs_are_rotated(layout):
    x = torch.randn(5, 7, 6, dtype=torch.float64)
    if layout == "odd offset":
        x = torch.randn(5 * 7 * 6 + 1, dtype=torch.float64)[1:].view(5, 7, 6)
    elif layout == "odd stride":
        x = torch.randn(5, 7, 9, dtype=torch.float64)[..., :6]
    elif layout == "transposed":
        x = torch.randn(5, 6, 7, dtype=torch.float64).mT
    table = rotary_table(7, rotary_angles(3), torch.float64)
    y = apply_rotary(x, table)
    for i in range(7):
        for p in range(3):
            cos, sin = torch.view_as_real(table[i, p])
            torch.testing.assert_close(y[:, i, 2 * p], x[:, i, 2 * p] * cos - x[:, i, 2 * p + 1] * sin)
            torch.testing.assert_close(y[:, i, 2 * p + 1], x[:, i, 2 * p + 1] * cos + x[:, i, 2 * p] * sin)


def test_compiled_and_eager_rotation_agree():
    def turned(x, position):
        return apply_rotary(x, rotary_table(x.shape[1], rotary_angles(3), x.dtype, position=position))

    x = torch.randn(2, 5, 6)
    compiled = torch.compile(turned, fullgraph=True, backend="aot_eager")
    for position in (None, torch.tensor([0, 10**5])):
        torch.testing.assert_close(compiled(x, position), turned(x, position))
