"""Pictures of a spiking network, and a page that holds them all.

``write`` makes the page, SpikeScope; every other picture is a matplotlib Figure, which ``save``
writes.
"""

from .canvas import save
from .conversion import conversion_curves
from .counts import count_histogram
from .plots import confusion_matrix, curves, rate_histogram
from .studio import RunPoint, load_traces, run_point, save_traces, write
from .traces import membrane, raster
from .training import loss_curves, spike_rates

__all__ = [
    "RunPoint", "confusion_matrix", "conversion_curves", "count_histogram", "curves",
    "load_traces", "loss_curves", "membrane", "raster", "rate_histogram", "run_point", "save",
    "save_traces", "spike_rates", "write",
]
