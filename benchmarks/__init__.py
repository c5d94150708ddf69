"""How fast the hot paths are, each against its reference: ``python -m benchmarks``."""
