"""Compiled programs in files: `save` writes one, `load` makes it callable where no compiler is installed."""
