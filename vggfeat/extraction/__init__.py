"""Images to descriptors: which store, what it lacks, and the work."""
