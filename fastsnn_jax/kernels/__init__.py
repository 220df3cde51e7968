"""Fast paths. Each has a plain twin it is tested against, in values and gradients."""
