"""Sphinx extensions of the site: pages made from the package's declarations when it is built."""
