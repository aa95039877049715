"""One file a dataset: layout, labels, splits, and what is said about it."""
