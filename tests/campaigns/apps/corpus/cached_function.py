import gradio as gr
from PIL import Image


@gr.cache
def drawn(colour):
    return Image.new("RGB", (8, 8), colour)


gr.Interface(drawn, gr.Textbox("purple"), gr.Image(format="png")).launch()
