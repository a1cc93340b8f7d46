"""AU-DFER: what action units say about expressions, as a prior, a loss and a head beside the classifier.

Start with ``loss.py``: ``AUPriorLoss``. The tables are in ``prior.py``, the class names in ``expressions.py``.
Hands on: AU targets ``(..., a)`` and losses.
"""
