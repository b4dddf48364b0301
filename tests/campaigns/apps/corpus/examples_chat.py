import gradio as gr
from PIL import Image

Image.new("RGB", (8, 8), "brown").save("look.png")


def answer(message, history):
    return str(len(message["files"]))


gr.ChatInterface(
    answer,
    multimodal=True,
    examples=[{"text": "look", "files": ["look.png"]}],
    cache_examples=False,
).launch()
