"""Gradio's own tests, with its files in a store and without: both must fail in the same places.

    python -m tests.gradio_suite [--only test_routes components ...]

The tests are those of the installed Gradio's source distribution. They are downloaded, with what
they need, into ``.gradio-suite/``, which git ignores, and run there.
"""
