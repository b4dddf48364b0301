"""Run Gradio apps plain and attached, and compare them."""
