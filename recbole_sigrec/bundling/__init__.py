"""From a trained model to a bundle that recommends without it."""
