"""Models side by side: arms × seeds on one split, and what can be said of the difference."""
