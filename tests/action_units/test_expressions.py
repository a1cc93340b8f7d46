import pytest

import mertools as mt
from mertools.action_units.expressions import canonical, class_names


def test_order_is_that_of_dfew():
    assert mt.EXPRESSIONS == ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")


def test_spellings_of_the_field():
    labels = ["Happiness", "SADNESS", " neutral ", "Anger", "Surprised", "disgust", "Fearful"]
    assert [canonical(label) for label in labels] == list(mt.EXPRESSIONS)
    assert canonical("contempt") is None


def test_class_sets():
    sizes = {name: len(classes) for name, classes in mt.CLASS_SETS.items()}
    assert sizes == {
        "DFEW": 7, "FERV39K": 7, "FERV39K-alphabetical": 7, "MAFW": 11, "CASME2-5": 5, "SAMM-5": 5, "CASME3-7": 7,
        "CASME3-4": 4, "MEGC2019": 3,
    }  # fmt: skip
    alphabetical = mt.CLASS_SETS["FERV39K-alphabetical"]
    assert sorted(alphabetical) == list(alphabetical)
    assert set(alphabetical) == set(mt.CLASS_SETS["FERV39K"])
    assert class_names("MEGC2019") == ("negative", "positive", "surprise")
    assert class_names(["a", "b"]) == ("a", "b")


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        (["happy", "Happiness"], ValueError, "happy more than once"),
        (["others", "Others"], ValueError, "others more than once"),
        ("RAF", ValueError, "one of the sets DFEW, .*got 'RAF'"),
        ([0, 1], TypeError, "classes must be a sequence"),
        ([], TypeError, "classes must be a sequence"),
        (7, TypeError, "classes must be a sequence"),
    ],
)
def test_bad_names(classes, error, message):
    with pytest.raises(error, match=message):
        class_names(classes)
