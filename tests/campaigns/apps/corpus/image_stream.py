import gradio as gr
from PIL import Image


def frames():
    for level in range(3):
        yield Image.new("L", (8, 8), 90 * level)


with gr.Blocks() as demo:
    gr.Button("Play").click(frames, None, gr.Image(format="png"))

demo.launch()
