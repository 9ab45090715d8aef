"""A bundle's vectors for other systems, in forms that rank exactly as the model does."""
