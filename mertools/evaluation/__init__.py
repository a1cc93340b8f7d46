"""Scores as the field defines them: metrics, folds by subject, and a book of predictions with intervals.

Start with ``score_book.py``: ``ScoreBook``. ``metrics.py`` has UF1, UAR and WAR, ``folds.py`` the splits.
Hands on: ``Scores`` and ``Fold``.
"""
