"""SpikeScope: a run as one offline HTML page."""

from .gather import RunPoint, run_point
from .trace_file import load_traces, save_traces
from .writer import write

__all__ = ["RunPoint", "load_traces", "run_point", "save_traces", "write"]
