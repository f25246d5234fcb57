"""Measurements of vggfeat; each module is one command, `python -m benchmarks.NAME`."""
