import numpy as np
import pytest
import torch

from mertools._checks import as_integer, check_choice, check_count, check_floating, check_number


def test_what_is_fine_comes_back():
    assert check_count("n", 3) == 3
    assert check_count("n", 0, least=0) == 0
    assert check_number("r", 0.5, 0, 1) == 0.5
    assert check_number("r", 7, 0) == 7
    check_choice("mode", "a", ("a", "b"))
    check_floating("x", torch.ones(2), "(b,)")


@pytest.mark.parametrize("value", [np.int64(7), np.uint8(7), np.array(7), torch.tensor(7), torch.tensor([7])])
def test_integers_of_any_kind_become_python_s_own(value):
    assert type(check_count("n", value)) is type(as_integer(value)) is int
    assert check_count("n", value) == 7


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), np.int64(3)])
def test_numbers_of_numpy_become_python_s_own(value):
    assert type(check_number("r", value, 0, 9)) in (int, float)
    assert check_number("r", value, 0, 9) == value


@pytest.mark.parametrize(
    "value",
    [True, np.True_, torch.tensor(True), 2.0, np.float64(2), torch.tensor(2.0), "2", None, np.array([1, 2]), 2j],
)
def test_what_counts_nothing_is_no_integer(value):
    assert as_integer(value) is None
    with pytest.raises(ValueError, match="n must be a positive integer, got"):
        check_count("n", value)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: check_count("n", 0), ValueError, "n must be a positive integer, got 0"),
        (lambda: check_count("n", True), ValueError, "got True"),
        (lambda: check_count("n", 2.0), ValueError, "got 2.0"),
        (lambda: check_count("n", 7, least=16), ValueError, "an integer of at least 16, got 7"),
        (lambda: check_number("r", None, 0), TypeError, "r must be a number, got None"),
        (lambda: check_number("r", True, 0), TypeError, "r must be a number, got True"),
        (lambda: check_number("r", float("nan"), 0, 1), ValueError, r"r must be in \[0, 1\], got nan"),
        (lambda: check_number("r", float("inf"), 0), ValueError, "finite and at least 0, got inf"),
        (lambda: check_number("r", 1.0, 0, 1, open_high=True), ValueError, r"in \[0, 1\), got 1.0"),
        (lambda: check_number("r", np.float32("nan"), 0, 1), ValueError, r"r must be in \[0, 1\], got nan"),
        (lambda: check_number("r", np.True_, 0, 1), TypeError, "r must be a number, got"),
        (lambda: check_choice("mode", "c", ("a", "b")), ValueError, "mode must be one of 'a', 'b', got 'c'"),
        (lambda: check_choice("mode", ["a"], ("a", "b")), ValueError, r"got \['a'\]"),
        (lambda: check_floating("x", [1], "(b,)"), TypeError, r"x must be a torch.Tensor \(b,\), got list"),
        (lambda: check_floating("x", torch.ones(2).int(), "(b,)"), TypeError, "x must be floating, got torch.int32"),
    ],
)
def test_what_is_not(call, error, message):
    with pytest.raises(error, match=message):
        call()
