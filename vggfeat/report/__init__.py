"""From a result to pages and tables."""
