"""Adapters from web frameworks to a store. Import each by its own name."""
