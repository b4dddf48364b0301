"""Bridges from web frameworks to a store. Each is imported by its own name, none on its own."""
