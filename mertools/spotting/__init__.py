"""Spotting: the expressions of a long video, each with its key frames.

Start with ``spot.py``: ``spot_expressions`` and ``iter_expressions``. ``movements.py`` finds the movements of one
stretch of frames; ``framing.py`` tells when the face is not where it is looked for, ``landmarks.py`` reads landmarks,
``timeline.py`` draws, ``synthetic.py`` makes long videos with known expressions.
Hands on: ``Expression`` (``record.py``).
"""
