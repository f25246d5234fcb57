"""Rows that survive anything: shards, their assembly into one HDF5 file, and its reader."""
