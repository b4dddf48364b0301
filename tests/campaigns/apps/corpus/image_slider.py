import gradio as gr
from PIL import ImageOps


def before_and_after(pictures):
    return pictures[0], ImageOps.invert(pictures[0].convert("RGB"))


gr.Interface(before_and_after, gr.ImageSlider(type="pil"), gr.ImageSlider(type="pil")).launch()
