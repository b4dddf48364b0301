"""The backends of the library, one module each; ``sessionstore.registry`` finds them."""
