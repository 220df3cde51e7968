"""Pictures of a spiking network: every function returns a matplotlib Figure, ``save`` writes it."""

from .canvas import save
from .plots import confusion_matrix, curves, rate_histogram
from .traces import membrane, raster

__all__ = ["confusion_matrix", "curves", "membrane", "raster", "rate_histogram", "save"]
