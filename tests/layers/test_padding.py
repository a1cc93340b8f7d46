import torch

from mertools.layers.padding import check_lengths, mask_padding, valid_mask


def test_real_frames():
    assert valid_mask(torch.tensor([2, 0, 3]), 3, torch.device("cpu")).int().tolist() == [
        [1, 1, 0],
        [0, 0, 0],
        [1, 1, 1],
    ]


def test_blank_padding_forgets_what_was_there():
    x = torch.full((2, 3, 5), torch.nan)
    x[0, :2] = 1
    assert mask_padding(x, torch.tensor([2, 0])).sum() == 10


def test_no_lengths_means_all():
    assert check_lengths(None, 2, 7).tolist() == [7, 7]
    assert check_lengths([0, 7], 2, 7, least=0).tolist() == [0, 7]
