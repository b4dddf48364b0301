import gradio as gr
from PIL import Image


def blank():
    picture = Image.new("RGB", (9, 9), "white")
    return {"background": picture, "layers": [], "composite": picture}


with gr.Blocks() as demo:
    editor = gr.ImageEditor(type="pil")
    gr.Button("New").click(blank, None, editor)
    editor.change(lambda edited: edited["composite"], editor, gr.Image())

demo.launch()
