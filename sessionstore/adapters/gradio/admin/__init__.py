"""The administrator's dashboard: a snapshot of the store, as HTML on a Gradio page."""
