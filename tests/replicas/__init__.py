"""Two replicas of one Gradio app on one store, behind nginx: what a visitor gets from either.

    python -m tests.replicas [--trips 20] [--write FILE]

runs the whole of it, with the store and without, and prints a table.
"""
