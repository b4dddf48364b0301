"""What things cost beside a peer that does the same: ``python -m benchmarks``."""
