import tempfile
from pathlib import Path

import gradio as gr


def report(text):
    path = Path(tempfile.mkdtemp()) / "report.txt"
    path.write_text(text * 3)
    return gr.DownloadButton("Report", value=str(path), visible=True)


with gr.Blocks() as demo:
    text = gr.Textbox("words")
    button = gr.DownloadButton(visible=False)
    gr.Button("Write").click(report, text, button)

demo.launch()
