"""The models, and the layers and losses that they share."""
