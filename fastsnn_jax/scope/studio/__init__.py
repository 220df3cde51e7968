"""SpikeScope: a run as one offline HTML page."""

from .gather import RunPoint
from .trace_file import load_traces, save_traces
from .writer import write

__all__ = ["RunPoint", "load_traces", "save_traces", "write"]
