"""Computations that all models share, as fast as the machine allows."""
