"""The parts of `python -m benchmarks torture`."""
