from pathlib import Path

import gradio as gr

Path("pages").mkdir(exist_ok=True)
Path("pages/inner.html").write_text("<p>Inner.</p>")
gr.set_static_paths("pages")

with gr.Blocks() as demo:
    gr.HTML('<iframe src="/gradio_api/file=pages/inner.html"></iframe>')

demo.launch()
