"""Data: interactions, modality features, and the data set that joins them."""
