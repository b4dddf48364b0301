from pathlib import Path

import gradio as gr

Path("assets").mkdir(exist_ok=True)
Path("assets/pattern.txt").write_text("xoxo")
gr.set_static_paths([Path.cwd() / "assets"])

with gr.Blocks() as demo:
    gr.HTML('<img src="/gradio_api/file=assets/pattern.txt">')
    gr.File("assets/pattern.txt")

demo.launch()
