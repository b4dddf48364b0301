from pathlib import Path

import gradio as gr

Path("closed").mkdir(exist_ok=True)
Path("closed/secret.txt").write_text("A secret.")

with gr.Blocks() as demo:
    gr.HTML('<a href="/gradio_api/file=closed/secret.txt">closed</a>')

demo.launch(blocked_paths=["closed"])
