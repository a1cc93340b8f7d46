import pytest

from mertools.expressions import EXPRESSIONS, expression_names


def test_order_is_that_of_dfew():
    assert EXPRESSIONS == ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")


def test_spellings_of_the_field():
    labels = ["Happiness", "SADNESS", " neutral ", "Anger", "Surprised", "disgust", "Fearful"]
    assert expression_names(labels) == list(EXPRESSIONS)


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        (["happy", "contempt"], ValueError, "got 'contempt'.*estimate_au_prior"),
        (["hapiness"], ValueError, "did you mean happiness"),
        (["happy", "happiness"], ValueError, "happy more than once"),
        ("happy", TypeError, "classes must be a sequence"),
        ([0, 1], TypeError, "classes must be a sequence"),
    ],
)
def test_bad_names(classes, error, message):
    with pytest.raises(error, match=message):
        expression_names(classes)
