"""Training one model, and what comes of it."""
