"""mertools: building blocks for micro-expression and dynamic facial expression recognition.

Key frames      FrameSelector, select_keyframes, KeyFrames, pairwise_distance      GAMDSS
Action units    AUPriorLoss, attach_au_head, AUHead, au_prior, au_pos_weight       AU-DFER
                estimate_au_prior, read_openface, facs_labels, FocalLoss, ...
Retention       Retention, RetNetTemporal, ManhattanRetention, ManhattanRetNet     TSFmicro, RetNet
                LSTMShape, FramePool, pool_frames, load_torchscale, chunkwise_retention, ...
Fusion          SpatialTransformer, ParallelFusion                                 TSFmicro
Models          TSFmicro, TwoBranch, load_published, load_rmt                      TSFmicro, GAMDSS
Annotations     read_annotations, check_dataset, apply_protocol, ClipDataset       GAMDSS
                audit_annotations, audit_table; optical_flow, resample_clip, ...
Evaluation      loso_folds, inner_split, check_fold, ScoreBook, uf1, uar, war      MEGC 2019
                lodo_folds, fixed_folds, group_folds, confusion_matrix, ...
Training        RunFolder, ClipBatches, save_checkpoint, join_processes, ...
Files           save_model, load_model, export_onnx
Clips           read_clip, synthetic_clip, synthetic_dataset, plot_keyframes, plot_au_prior, ...
"""

from mertools.action_units.detectors import ActionUnitTable, OpenFaceAUs, read_action_units, read_openface
from mertools.action_units.expressions import CLASS_SETS, EXPRESSIONS
from mertools.action_units.facs import FacsLabels, facs_labels, read_facs
from mertools.action_units.head import AUHead, attach_au_head, detach_au_head
from mertools.action_units.imbalance import FocalLoss, LogitAdjustedLoss, class_weights
from mertools.action_units.labels import read_au_labels, write_au_labels
from mertools.action_units.loss import AUPriorLoss, au_prior_loss
from mertools.action_units.prior import (
    ACTION_UNITS,
    au_pos_weight,
    au_prior,
    clip_au_labels,
    estimate_au_prior,
    estimate_pos_weight,
)
from mertools.annotations.annotation import ClipAnnotation, Problem, Repair
from mertools.annotations.dataset import ClipDataset
from mertools.annotations.folders import (
    DatasetReport,
    FrameFolder,
    FrameFolders,
    check_dataset,
    find_frames,
    search_apex,
)
from mertools.annotations.protocols import PROTOCOLS, Protocol, ProtocolClips, apply_protocol
from mertools.annotations.quality import repair_annotations
from mertools.annotations.read import Annotations, read_annotations
from mertools.annotations.schemas import AnnotationSchema, frame_list_schema
from mertools.audit.results import AnnotationAudit, ClipAudit
from mertools.audit.run import AuditedTable, audit_annotations, audit_table
from mertools.clips.augment import ClipAugment, Geometry, transform_clip
from mertools.clips.faces import face_box
from mertools.clips.flow import optical_flow, optical_strain
from mertools.clips.magnify import magnify_motion
from mertools.clips.read import read_clip
from mertools.clips.resample import resample_clip
from mertools.clips.synthetic import SyntheticClip, drawn_portrait, synthetic_clip
from mertools.clips.synthetic_dataset import SyntheticDataset, synthetic_dataset
from mertools.evaluation.folds import Fold, check_fold, fixed_folds, group_folds, inner_split, lodo_folds, loso_folds
from mertools.evaluation.meters import UAR, UF1, WAR
from mertools.evaluation.metrics import ClassScores, class_scores, confusion_matrix, uar, uf1, war
from mertools.evaluation.score_book import ScoreBook, Scores
from mertools.evaluation.score_io import Prediction
from mertools.evaluation.spotting import SpotThenRecognizeScores, SpottingScores, spot_then_recognize, spotting_scores
from mertools.keyframes.distance import pairwise_distance
from mertools.keyframes.records import KeyFrames
from mertools.keyframes.selector import FrameSelector, select_keyframes
from mertools.layers.fusion import ParallelFusion
from mertools.layers.pooling import FramePool, pool_frames
from mertools.layers.spatial import SpatialTransformer
from mertools.models.frame_encoder import FrameEncoder
from mertools.models.hub import load_model, save_model
from mertools.models.onnx import export_onnx
from mertools.models.pretrained import load_published, load_rmt, load_torchscale, load_yet_another_retnet
from mertools.models.tsfmicro import TSFmicro
from mertools.models.two_branch import TwoBranch
from mertools.plots import plot_au_prior, plot_confusion, plot_keyframes
from mertools.retention.backbone import ManhattanRetNet
from mertools.retention.forms import chunkwise_retention, recurrent_retention, retention_step, two_sided_retention
from mertools.retention.layer import Retention, RetentionState, default_decay
from mertools.retention.lstm_shape import LSTMShape
from mertools.retention.manhattan import ManhattanRetention
from mertools.retention.temporal import RetNetTemporal
from mertools.spotting.landmarks import read_landmarks
from mertools.spotting.record import Expression
from mertools.spotting.spot import iter_expressions, spot_expressions
from mertools.spotting.synthetic import SyntheticExpression, SyntheticVideo
from mertools.training.batches import ClipBatches
from mertools.training.checkpoints import load_checkpoint, load_weights, save_checkpoint, save_weights
from mertools.training.processes import Processes, join_processes
from mertools.training.run_folder import FoldFolder, RunFolder

__version__ = "0.1.0"

__all__ = [
    "ACTION_UNITS", "CLASS_SETS", "EXPRESSIONS", "PROTOCOLS", "UAR", "UF1", "WAR", "AUHead", "AUPriorLoss",
    "ActionUnitTable", "AnnotationAudit", "AnnotationSchema", "Annotations", "AuditedTable", "ClassScores",
    "ClipAnnotation", "ClipAudit", "ClipAugment", "ClipBatches", "ClipDataset", "DatasetReport", "Expression",
    "FacsLabels", "FocalLoss", "Fold", "FoldFolder", "FrameEncoder", "FrameFolder", "FrameFolders", "FramePool",
    "FrameSelector", "Geometry", "KeyFrames", "LSTMShape", "LogitAdjustedLoss", "ManhattanRetNet",
    "ManhattanRetention", "OpenFaceAUs", "ParallelFusion", "Prediction", "Problem", "Processes", "Protocol",
    "ProtocolClips", "Repair", "RetNetTemporal", "Retention", "RetentionState", "RunFolder", "ScoreBook", "Scores",
    "SpatialTransformer", "SpotThenRecognizeScores", "SpottingScores", "SyntheticClip", "SyntheticDataset",
    "SyntheticExpression", "SyntheticVideo", "TSFmicro", "TwoBranch", "__version__", "apply_protocol",
    "attach_au_head", "au_pos_weight", "au_prior", "au_prior_loss", "audit_annotations", "audit_table",
    "check_dataset", "check_fold", "chunkwise_retention", "class_scores", "class_weights", "clip_au_labels",
    "confusion_matrix", "default_decay", "detach_au_head", "drawn_portrait", "estimate_au_prior",
    "estimate_pos_weight", "export_onnx", "face_box", "facs_labels", "find_frames", "fixed_folds",
    "frame_list_schema", "group_folds", "inner_split", "iter_expressions", "join_processes", "load_checkpoint",
    "load_model", "load_published", "load_rmt", "load_torchscale", "load_weights", "load_yet_another_retnet",
    "lodo_folds", "loso_folds", "magnify_motion", "optical_flow", "optical_strain", "pairwise_distance",
    "plot_au_prior", "plot_confusion", "plot_keyframes", "pool_frames", "read_action_units", "read_annotations",
    "read_au_labels", "read_clip", "read_facs", "read_landmarks", "read_openface", "recurrent_retention",
    "repair_annotations", "resample_clip", "retention_step", "save_checkpoint", "save_model", "save_weights",
    "search_apex", "select_keyframes", "spot_expressions", "spot_then_recognize", "spotting_scores",
    "synthetic_clip", "synthetic_dataset", "transform_clip", "two_sided_retention", "uar", "uf1", "war",
    "write_au_labels",
]  # fmt: skip
