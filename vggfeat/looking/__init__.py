"""Looking at a store: nearest neighbours, a map, an export."""
