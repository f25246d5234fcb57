"""Images to descriptors: decode, rescale, batch, dense forward, pool, mirror."""
