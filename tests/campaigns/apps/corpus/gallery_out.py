import gradio as gr
from PIL import Image


def shades(count):
    return [Image.new("RGB", (8, 8), (40 * each, 0, 0)) for each in range(int(count))]


gr.Interface(shades, gr.Number(3), gr.Gallery()).launch()
