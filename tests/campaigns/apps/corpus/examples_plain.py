import gradio as gr
from PIL import Image

Image.new("RGB", (8, 8), "navy").save("one.png")
Image.new("RGB", (8, 8), "lime").save("two.png")


def same(path):
    return path


gr.Interface(
    same,
    gr.Image(type="filepath"),
    gr.Image(),
    examples=["one.png", "two.png"],
    cache_examples=False,
).launch()
