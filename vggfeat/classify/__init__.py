"""Descriptors to scores to a number."""
