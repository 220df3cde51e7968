"""How a run reports: events from the loop, and a reader that writes them to a stream."""

import sys
from collections.abc import Callable
from typing import NamedTuple, TextIO


class Event(NamedTuple):
    """What the loop tells after a dispatch ("chunk"), every ``log_every`` steps ("batch") and
    after an epoch ("epoch").

    Attributes:
      kind: "chunk", "batch" or "epoch".
      epoch, epochs: current epoch from 1, and how many there are.
      step, steps: steps done in the epoch, and how many there are.
      loss: of the last batch; for "epoch" the mean over the epoch.
      accuracy: percent, over the epoch so far.
      samples_per_s: steady training speed, None before it is known; tokens of text are samples.
      eta_s: seconds left at that speed, None before it is known.
      val_accuracy: percent; only for "epoch" with an evaluation.
      best: whether the monitored figure of that evaluation is the best so far.
      val_loss: mean; only where there has just been an evaluation.
    """

    kind: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    samples_per_s: float | None = None
    eta_s: float | None = None
    val_accuracy: float | None = None
    best: bool = False
    val_loss: float | None = None


Progress = Callable[[Event], None]


def stream_progress(stream: TextIO | None = None) -> Progress:
    """Returns a reader that writes lines to ``stream`` (default: standard error).

    On a terminal a status line with rate and time left follows every dispatch.

    >>> stream_progress(sys.stdout)(Event("batch", 1, 5, 100, 859, 0.5, 80.0, 2000.0, 62.0))
    epoch 1/5  step 100/859  loss 0.5000  accuracy 80.00 %  2,000 samples/s  1:02 left
    """
    stream = sys.stderr if stream is None else stream
    live = stream.isatty()

    def write(event: Event) -> None:
        if event.kind == "chunk":
            if live:
                stream.write("\r" + _line(event) + "\033[K")
        else:
            stream.write(("\r\033[K" if live else "") + _line(event) + "\n")
        stream.flush()

    return write


def _line(event: Event) -> str:
    parts = [f"epoch {event.epoch}/{event.epochs}"]
    if event.kind != "epoch":
        parts.append(f"step {event.step}/{event.steps}")
    parts += [f"loss {event.loss:.4f}", f"accuracy {event.accuracy:.2f} %"]
    if event.val_loss is not None:
        parts.append(f"validation loss {event.val_loss:.4f}")
    if event.val_accuracy is not None:
        parts.append(f"validation {event.val_accuracy:.2f} %" + (" (best)" if event.best else ""))
    if event.samples_per_s is not None:
        parts.append(f"{event.samples_per_s:,.0f} samples/s")
    if event.eta_s is not None:
        minutes, seconds = divmod(round(event.eta_s), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    return "  ".join(parts)
