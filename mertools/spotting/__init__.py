"""Spotting: the expressions of a long video, each with its key frames.

Start with ``spot.py``: ``spot_expressions`` and ``iter_expressions``. ``movements.py`` finds the movements of one
stretch of frames on the motion front end of the key-frame search.
Hands on: ``Expression`` (``record.py``).
"""
