import gradio as gr
from PIL import Image

Image.new("RGB", (8, 4), "maroon").save("one.png")


def turned(picture):
    return picture.rotate(90, expand=True)


gr.Interface(
    turned,
    gr.Image(type="pil"),
    gr.Image(format="png"),
    examples=["one.png"],
    cache_examples=True,
    cache_mode="lazy",
).launch()
