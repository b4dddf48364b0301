import gradio as gr
from PIL import Image

with gr.Blocks() as demo:
    gr.Image(Image.new("RGB", (6, 6), "green"))
    gr.Gallery([Image.new("RGB", (5, 5), "red"), Image.new("RGB", (4, 4), "blue")])

demo.launch()
