import pytest

from mertools._text import escape_unprintable, plain_subject


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sub01/EP02_01f", "sub01/EP02_01f"), ("表情 é 𝟙", "表情 é 𝟙"), ("a\x1b[2Jb", r"a\x1b[2Jb"), ("a\nb", r"a\nb"),
        ("\u202egnp.1", r"\u202egnp.1"), ("\ud800", r"\ud800"), ("\x9b31m", r"\x9b31m"), ("\U000e0041", r"\U000e0041"), ("", ""),
    ],
)  # fmt: skip
def test_what_does_not_print_is_spelt_out(text, expected):
    assert escape_unprintable(text) == expected
    assert escape_unprintable(text).isprintable()


def test_long_names_are_cut_in_the_middle():
    assert escape_unprintable("0123456789", 7) == "012…789"
    assert escape_unprintable("0123456", 7) == "0123456"
    assert len(escape_unprintable("x\n" * 200, 41)) == 41


def test_subjects_have_one_normal_form():
    spelt = ("1", "01", "001", "sub01", "sub_1", "SUB-01", "s01", "S 1", "Subject 001", "spNO.1", "1.0", "ｓ０１")
    assert {plain_subject(name) for name in spelt} == {"1"}
    assert {plain_subject(name) for name in ("casme2/sub04", "CASME2/04")} == {"casme2/4"}
    apart = ("1", "11", "101", "1 2", "p1", "a1", "s1b", "samm/1", "0", "anna", "anna b")
    assert len({plain_subject(name) for name in apart}) == len(apart)
