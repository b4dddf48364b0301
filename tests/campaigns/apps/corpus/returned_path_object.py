from pathlib import Path

import gradio as gr

Path("beside.txt").write_text("Beside the app.")


def beside():
    return "beside.txt", Path("beside.txt")


with gr.Blocks() as demo:
    gr.Button("Get").click(beside, None, [gr.File(), gr.DownloadButton()])

demo.launch()
