import gradio as gr
from PIL import Image


def changed():
    picture = Image.new("RGB", (8, 8), "cornsilk")
    return gr.update(value=picture, label="new"), gr.Gallery([picture], columns=1)


with gr.Blocks() as demo:
    picture, gallery = gr.Image(format="png"), gr.Gallery(format="png")
    gr.Button("Go").click(changed, None, [picture, gallery])

demo.launch()
