import gradio as gr
from PIL import Image


def cropped(picture):
    return picture.crop((0, 0, 4, 4))


with gr.Blocks() as demo:
    picture = gr.Image(Image.new("RGB", (8, 8), "teal"), type="pil")
    part = gr.Image()
    picture.upload(cropped, picture, part)
    picture.clear(lambda: None, None, part)

demo.launch()
