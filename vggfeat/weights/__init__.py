"""Weight files: which there are, where they are, what is in them."""
