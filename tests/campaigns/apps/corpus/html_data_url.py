import base64
import io

import gradio as gr
from PIL import Image


def picture(colour):
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(stream, "PNG")
    return f'<img src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'


gr.Interface(picture, gr.Textbox("red"), gr.HTML()).launch()
