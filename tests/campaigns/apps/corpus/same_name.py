from pathlib import Path

import gradio as gr


def rewritten(text):
    Path("same.txt").write_text(text)
    return "same.txt"


with gr.Blocks() as demo:
    text, file = gr.Textbox("one"), gr.File()
    text.submit(rewritten, text, file)
    gr.Button("Other").click(lambda: rewritten("two"), None, file)

demo.launch()
