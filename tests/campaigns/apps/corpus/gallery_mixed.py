import gradio as gr
import numpy as np
from PIL import Image


def mixed(path):
    return [
        (path, "uploaded"),
        (Image.new("RGB", (7, 7), "pink"), "made"),
        np.zeros((6, 6, 3), "uint8"),
    ]


gr.Interface(mixed, gr.Image(type="filepath"), gr.Gallery(format="png")).launch()
