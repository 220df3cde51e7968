"""Pictures of a spiking network: every function returns a matplotlib Figure, ``save`` writes it."""

from .canvas import save
from .counts import count_histogram
from .plots import confusion_matrix, curves, rate_histogram
from .traces import membrane, raster
from .training import loss_curves, spike_rates

__all__ = [
    "confusion_matrix", "count_histogram", "curves", "loss_curves", "membrane", "raster",
    "rate_histogram", "save", "spike_rates",
]
