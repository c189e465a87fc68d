"""Lookbehind-SAM and its whole family as Optax gradient transformations."""

from lookbehind_optax._alpha import adaptive_alpha as adaptive_alpha
from lookbehind_optax._alpha import AdaptiveAlpha as AdaptiveAlpha
from lookbehind_optax._aux import ModelState as ModelState
from lookbehind_optax._climb import sharpness_aware as sharpness_aware
from lookbehind_optax._climb import SharpnessAwareState as SharpnessAwareState
from lookbehind_optax._descents import Descent as Descent
from lookbehind_optax._descents import every_descent as every_descent
from lookbehind_optax._descents import last_descent as last_descent
from lookbehind_optax._descents import mean_descent as mean_descent
from lookbehind_optax._descents import Step as Step
from lookbehind_optax._descents import surrogate_gap_descent as surrogate_gap_descent
from lookbehind_optax._descents import weighted_descent as weighted_descent
from lookbehind_optax._directions import asam_direction as asam_direction
from lookbehind_optax._directions import friendly_direction as friendly_direction
from lookbehind_optax._directions import random_direction as random_direction
from lookbehind_optax._directions import sam_direction as sam_direction
from lookbehind_optax._linen import linen_step as linen_step
from lookbehind_optax._lookahead import eval_params as eval_params
from lookbehind_optax._lookahead import lookahead as lookahead
from lookbehind_optax._lookahead import LookaheadState as LookaheadState
from lookbehind_optax._members import asam as asam
from lookbehind_optax._members import friendly_sam as friendly_sam
from lookbehind_optax._members import gsam as gsam
from lookbehind_optax._members import lookbehind_asam as lookbehind_asam
from lookbehind_optax._members import lookbehind_sam as lookbehind_sam
from lookbehind_optax._members import multistep_asam as multistep_asam
from lookbehind_optax._members import multistep_sam as multistep_sam
from lookbehind_optax._members import sam as sam
from lookbehind_optax._members import wsam as wsam
from lookbehind_optax._nnx import nnx_step as nnx_step
from lookbehind_optax._step import make_step as make_step
from lookbehind_optax._step import StepOutput as StepOutput

__version__ = "0.1.0"
