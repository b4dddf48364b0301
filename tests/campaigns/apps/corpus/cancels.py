import gradio as gr
from PIL import Image


def frames():
    for level in range(2):
        yield Image.new("L", (8, 8), 100 * level)


with gr.Blocks() as demo:
    playing = gr.Button("Play").click(frames, None, gr.Image(format="png"))
    gr.Button("Stop").click(None, None, None, cancels=[playing])

demo.launch()
