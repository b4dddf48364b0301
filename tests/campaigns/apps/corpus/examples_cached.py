import gradio as gr
from PIL import Image, ImageOps

Image.new("RGB", (8, 4), "navy").save("one.png")


def flipped(picture):
    return ImageOps.flip(picture)


gr.Interface(
    flipped,
    gr.Image(type="pil"),
    gr.Image(format="png"),
    examples=["one.png"],
    cache_examples=True,
).launch()
