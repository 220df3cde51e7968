"""Training: one loop for images and text."""

from fastsnn_jax.train.chunk import Source, rows_of
from fastsnn_jax.train.config import TrainConfig
from fastsnn_jax.train.distillation import distillation_loss, distillation_sums, divergence
from fastsnn_jax.train.evaluate import make_evaluate
from fastsnn_jax.train.faults import TrainingError
from fastsnn_jax.train.fit import Fitted, fit
from fastsnn_jax.train.interrupt import Interrupted
from fastsnn_jax.train.journal import Journal
from fastsnn_jax.train.lm_evaluation import Evaluation, next_token_sums
from fastsnn_jax.train.lm_loss import next_token_loss
from fastsnn_jax.train.loop import LoopConfig, TrainResult, train
from fastsnn_jax.train.order import epoch_order, hold_out
from fastsnn_jax.train.plateau import Plateau
from fastsnn_jax.train.progress import Event, Progress, stream_progress
from fastsnn_jax.train.state import TrainState, eval_params, init_state
from fastsnn_jax.train.step import make_train_step
from fastsnn_jax.train.trainer import Trainer

__all__ = [
    "Evaluation", "Event", "Fitted", "Interrupted", "Journal", "LoopConfig", "Plateau", "Progress",
    "Source", "TrainConfig", "TrainResult", "TrainState", "Trainer", "TrainingError",
    "distillation_loss", "distillation_sums", "divergence", "epoch_order", "eval_params", "fit",
    "hold_out", "init_state", "make_evaluate", "make_train_step", "next_token_loss",
    "next_token_sums", "rows_of", "stream_progress", "train",
]
