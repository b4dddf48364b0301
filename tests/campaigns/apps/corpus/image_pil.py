import gradio as gr
from PIL import ImageOps


def mirrored(picture):
    return ImageOps.mirror(picture)


gr.Interface(mirrored, gr.Image(type="pil"), gr.Image(format="png")).launch()
