import gradio as gr
from PIL import Image

with gr.Blocks() as demo:
    picture = gr.State(Image.new("RGB", (8, 8), "salmon"), time_to_live=60)
    shown = gr.Image(format="png")
    gr.Button("Turn").click(lambda image: image.rotate(45), picture, picture)
    gr.Button("Show").click(lambda image: image, picture, shown)

demo.launch()
