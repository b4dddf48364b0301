from pathlib import Path

import gradio as gr

Path("shelf").mkdir(exist_ok=True)
Path("shelf/book.txt").write_text("A book.")


def opened(paths):
    return "shelf/book.txt", [str(path) for path in paths]


with gr.Blocks() as demo:
    explorer = gr.FileExplorer(root_dir="shelf")
    shown, names = gr.File(), gr.JSON()
    gr.Button("Open").click(opened, explorer, [shown, names])

demo.launch()
