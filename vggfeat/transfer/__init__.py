"""Descriptors to a number: the SVMs of the paper's Appendix B, and what is done with them."""
