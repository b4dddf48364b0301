"""Locks, workspaces and errors of the operating system."""
