"""mertools: building blocks for micro-expression and dynamic facial expression recognition.

Key frames      FrameSelector, select_keyframes, KeyFrames, pairwise_distance      GAMDSS
Action units    AUPriorLoss, attach_au_head, AUHead, au_prior, au_pos_weight       AU-DFER
                estimate_au_prior, read_openface, facs_labels, FocalLoss, ...
Retention       Retention, RetNetTemporal, ManhattanRetention, ManhattanRetNet     TSFmicro, RetNet
                FramePool, pool_frames, load_torchscale
Fusion          SpatialTransformer, ParallelFusion                                 TSFmicro
Models          TSFmicro, TwoBranch, load_published                                TSFmicro, GAMDSS
Clips           read_clip, synthetic_clip, plot_keyframes, plot_au_prior
"""

from mertools.au import (
    ACTION_UNITS,
    au_pos_weight,
    au_prior,
    clip_au_labels,
    estimate_au_prior,
    estimate_pos_weight,
)
from mertools.au_head import AUHead, attach_au_head, detach_au_head
from mertools.au_labels import OpenFaceAUs, facs_labels, read_au_labels, read_openface, write_au_labels
from mertools.au_loss import AUPriorLoss, au_prior_loss
from mertools.backbone import ManhattanRetNet
from mertools.clips import read_clip
from mertools.distance import pairwise_distance
from mertools.expressions import CLASS_SETS, EXPRESSIONS
from mertools.fusion import ParallelFusion
from mertools.imbalance import FocalLoss, LogitAdjustedLoss, class_weights
from mertools.keyframes import KeyFrames
from mertools.manhattan import ManhattanRetention
from mertools.models import TSFmicro, TwoBranch
from mertools.plots import plot_au_prior, plot_keyframes
from mertools.pooling import FramePool, pool_frames
from mertools.published import load_published
from mertools.retention import Retention, RetentionState
from mertools.selection import FrameSelector, select_keyframes
from mertools.spatial import SpatialTransformer
from mertools.synthetic import SyntheticClip, drawn_portrait, synthetic_clip
from mertools.temporal import RetNetTemporal
from mertools.torchscale import load_torchscale

__version__ = "0.1.0"

__all__ = [
    "ACTION_UNITS",
    "CLASS_SETS",
    "EXPRESSIONS",
    "AUHead",
    "AUPriorLoss",
    "FocalLoss",
    "FramePool",
    "FrameSelector",
    "KeyFrames",
    "LogitAdjustedLoss",
    "ManhattanRetNet",
    "ManhattanRetention",
    "OpenFaceAUs",
    "ParallelFusion",
    "RetNetTemporal",
    "Retention",
    "RetentionState",
    "SpatialTransformer",
    "SyntheticClip",
    "TSFmicro",
    "TwoBranch",
    "__version__",
    "attach_au_head",
    "au_pos_weight",
    "au_prior",
    "au_prior_loss",
    "class_weights",
    "clip_au_labels",
    "detach_au_head",
    "drawn_portrait",
    "estimate_au_prior",
    "estimate_pos_weight",
    "facs_labels",
    "load_published",
    "load_torchscale",
    "pairwise_distance",
    "plot_au_prior",
    "plot_keyframes",
    "pool_frames",
    "read_au_labels",
    "read_clip",
    "read_openface",
    "select_keyframes",
    "synthetic_clip",
    "write_au_labels",
]
