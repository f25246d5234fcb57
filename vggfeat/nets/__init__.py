"""What runs, with which preprocessing: the nets of the paper and their weights."""
