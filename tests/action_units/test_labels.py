import pytest
import torch

import mertools as mt


def test_label_cache_round_trip(tmp_path):
    labels = {"00001.csv/1": torch.randint(0, 2, (18,)).float(), "00002": torch.rand(18)}
    labels["no-face"] = torch.full((18,), torch.nan)
    path = tmp_path / "AU.txt"
    path.write_text("old")
    mt.write_au_labels(path, labels)
    read = mt.read_au_labels(path)
    assert list(read) == list(labels)
    for name, row in labels.items():
        torch.testing.assert_close(read[name], row, rtol=0, atol=0, equal_nan=True)
    assert [p.name for p in tmp_path.iterdir()] == ["AU.txt"]


def test_label_cache_of_au_dfer(tmp_path):
    path = tmp_path / "AU_DFEW.txt"
    path.write_text(" 00001.csv/1 " + " ".join(["1", "0"] * 9) + "\n\n 00002.csv/1 " + " ".join(["0"] * 18) + "\n")
    read = mt.read_au_labels(path)
    assert read["00001.csv/1"].tolist() == [1, 0] * 9
    assert not read["00002.csv/1"].any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 1 0 1", "got 3 in line 1"),
        ("a " + "2 " * 18, r"values in \[0, 1\]"),
        ("a " + "x " * 18, "no number in line 1"),
        (("a " + "1 " * 18 + "\n") * 2, "'a' twice, again in line 2"),
    ],
)
def test_bad_caches(tmp_path, text, message):
    path = tmp_path / "AU.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        mt.read_au_labels(path)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ({"a b": torch.ones(18)}, ValueError, "names without blanks"),
        ({"a": torch.ones(17)}, ValueError, r"labels\['a'\] must be \(18,\)"),
        ({"a": torch.full((18,), 3.0)}, ValueError, r"in \[0, 1\]"),
        ({"a": [1] * 18}, TypeError, "must be a torch.Tensor"),
        ([1], TypeError, "labels must map"),
        ({1: torch.ones(18)}, TypeError, "labels must have strings as names, got 1"),
    ],
)
def test_what_is_not_written(tmp_path, labels, error, message):
    with pytest.raises(error, match=message):
        mt.write_au_labels(tmp_path / "AU.txt", labels)
    assert list(tmp_path.iterdir()) == []
