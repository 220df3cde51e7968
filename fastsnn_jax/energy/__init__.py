"""Energy: exact counts x a device's cited constants x stated assumptions, three separate layers.

Counts come from a model's spikes (``count_layers``) or from any JAX function (``count``);
``report`` prices them on a ``Profile`` under a ``Mapping``. NeuroBench's metrics are a view of the
same counts, and spikes have a price that training can pay (``synaptic_operations``, ``energy_pj``).
"""

from fastsnn_jax.energy.accountant import OpCounts, ProductCounts, count
from fastsnn_jax.energy.break_even import break_even
from fastsnn_jax.energy.counts import count_layers
from fastsnn_jax.energy.layer_counts import LayerCounts
from fastsnn_jax.energy.mapping import Mapping
from fastsnn_jax.energy.neurobench import Connection, neurobench
from fastsnn_jax.energy.objective import above_target, energy_pj, synaptic_operations
from fastsnn_jax.energy.profiles import Profile, load_profile, profile_names
from fastsnn_jax.energy.proxies import proxies
from fastsnn_jax.energy.recurrent_cells import Cell
from fastsnn_jax.energy.report import report, to_bytes, validate_report
from fastsnn_jax.energy.text import compare_reports, format_report

__all__ = [
    "Cell", "Connection", "LayerCounts", "Mapping", "OpCounts", "ProductCounts", "Profile",
    "above_target", "break_even", "compare_reports", "count", "count_layers", "energy_pj",
    "format_report", "load_profile", "neurobench", "profile_names", "proxies", "report",
    "synaptic_operations", "to_bytes", "validate_report",
]
