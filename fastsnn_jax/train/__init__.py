"""Training: one loop for images and text."""

from fastsnn_jax.train.chunk import Source, rows_of
from fastsnn_jax.train.evaluate import make_evaluate
from fastsnn_jax.train.fit import Fitted, fit
from fastsnn_jax.train.interrupt import Interrupted
from fastsnn_jax.train.journal import Journal
from fastsnn_jax.train.loop import TrainConfig, TrainingError, TrainResult, train
from fastsnn_jax.train.order import epoch_order, hold_out
from fastsnn_jax.train.plateau import Plateau
from fastsnn_jax.train.progress import Event, Progress, stream_progress
from fastsnn_jax.train.state import TrainState, eval_params, init_state
from fastsnn_jax.train.step import make_train_step

__all__ = [
    "Event", "Fitted", "Interrupted", "Journal", "Plateau", "Progress", "Source", "TrainConfig",
    "TrainResult", "TrainState", "TrainingError", "epoch_order", "eval_params", "fit", "hold_out",
    "init_state", "make_evaluate", "make_train_step", "rows_of", "stream_progress", "train",
]
