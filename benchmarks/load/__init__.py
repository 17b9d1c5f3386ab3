"""The parts of `python -m benchmarks server`; the tests marked `load` use them too, with smaller numbers."""
