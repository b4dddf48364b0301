"""The administrator's dashboard: a snapshot of the store, rendered as HTML on a Gradio page."""
