import gradio as gr
from PIL import Image


def answer(message, history):
    picture = Image.new("RGB", (8, 8), "olive")
    yield "drawing"
    yield [gr.Image(picture), f"for {message}"]


gr.ChatInterface(answer, save_history=True).launch()
