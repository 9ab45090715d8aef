"""A bundle that answers over HTTP, and in a page to look at; without torch and without RecBole."""
