"""mertools: building blocks for micro-expression and dynamic facial expression recognition.

Key frames      FrameSelector, select_keyframes, KeyFrames, pairwise_distance      GAMDSS
Action units    AUPriorLoss, AUHead, au_prior, au_pos_weight, and how to estimate  AU-DFER
Retention       Retention, RetNetTemporal, ManhattanRetention, ManhattanRetNet     TSFmicro, RetNet
Fusion          SpatialTransformer, ParallelFusion                                 TSFmicro
Models          TSFmicro, TwoBranch, load_published                                TSFmicro, GAMDSS
Clips           read_clip, synthetic_clip, plot_keyframes
"""

from mertools.au import (
    ACTION_UNITS,
    AUHead,
    au_pos_weight,
    au_prior,
    clip_au_labels,
    estimate_au_prior,
    estimate_pos_weight,
)
from mertools.au_loss import AUPriorLoss, au_prior_loss
from mertools.clips import read_clip
from mertools.distance import pairwise_distance
from mertools.expressions import EXPRESSIONS
from mertools.fusion import ParallelFusion
from mertools.manhattan import ManhattanRetention, ManhattanRetNet
from mertools.models import TSFmicro, TwoBranch
from mertools.plots import plot_keyframes
from mertools.published import load_published
from mertools.retention import Retention
from mertools.selection import FrameSelector, KeyFrames, select_keyframes
from mertools.spatial import SpatialTransformer
from mertools.synthetic import SyntheticClip, drawn_portrait, synthetic_clip
from mertools.temporal import RetNetTemporal

__version__ = "0.1.0"

__all__ = [
    "ACTION_UNITS",
    "EXPRESSIONS",
    "AUHead",
    "AUPriorLoss",
    "FrameSelector",
    "KeyFrames",
    "ManhattanRetNet",
    "ManhattanRetention",
    "ParallelFusion",
    "RetNetTemporal",
    "Retention",
    "SpatialTransformer",
    "SyntheticClip",
    "TSFmicro",
    "TwoBranch",
    "__version__",
    "au_pos_weight",
    "au_prior",
    "au_prior_loss",
    "clip_au_labels",
    "drawn_portrait",
    "estimate_au_prior",
    "estimate_pos_weight",
    "load_published",
    "pairwise_distance",
    "plot_keyframes",
    "read_clip",
    "select_keyframes",
    "synthetic_clip",
]
