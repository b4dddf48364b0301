import gradio as gr
from PIL import Image


async def pictures(path):
    for size in (4, 6, 8):
        yield [Image.open(path).resize((size, size)), Image.new("L", (size, size))]


gr.Interface(pictures, gr.Image(type="filepath"), gr.Gallery(format="png")).launch()
