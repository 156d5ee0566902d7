"""Access tokens that are bought with the client's credentials, and the stores that share them."""
