"""How far annotations are off: key frames searched again for a whole dataset, with statistics and a corrected table.

Start with ``run.py``: ``audit_annotations`` and ``audit_table``; ``search.py`` looks at the clips, ``journal.py``
resumes.
Hands on: ``AnnotationAudit`` of ``results.py``, a report, and the table in its own layout.
"""
