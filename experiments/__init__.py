"""Experiments: each file is a lab record over a recipe; run with ``python -m experiments.NAME``."""
