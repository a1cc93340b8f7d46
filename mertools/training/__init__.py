"""What a training script needs around its loop: a run folder, checkpoints, batches for any number of processes.

Start with ``run_folder.py``: ``RunFolder``.
Hands on: state that resumes to the same bytes.
"""
