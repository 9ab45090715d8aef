"""Several processes: those that train one model together, and those that work apart."""
