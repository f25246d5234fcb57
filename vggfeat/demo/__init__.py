"""The whole main job on an embedded data set."""
