"""How bytes get here and stay: published whole, hashed once, fetched, unpacked."""
