from pathlib import Path

import gradio as gr

Path("manual.txt").write_text("A manual.")

with gr.Blocks() as demo:
    gr.DownloadButton("Manual", value="manual.txt")
    gr.File("manual.txt", label="The same")

demo.launch()
