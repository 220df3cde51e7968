"""ANN to SNN as a JAX transformation: `convert` reads any function's jaxpr and makes it spike."""

from fastsnn_jax.conversion.anytime import anytime
from fastsnn_jax.conversion.converted import Converted
from fastsnn_jax.conversion.methods import METHODS
from fastsnn_jax.conversion.report import ConversionReport, SiteReport
from fastsnn_jax.conversion.sites import Site
from fastsnn_jax.conversion.transform import convert

__all__ = ["METHODS", "ConversionReport", "Converted", "Site", "SiteReport", "anytime",
           "convert"]
