"""The version of parc; pyproject.toml reads it here."""

VERSION = "0.1.0"
