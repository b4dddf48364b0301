"""The backends of the library, a module or package each; ``sessionstore.registry`` finds them."""
