import gradio as gr
from PIL import Image

with gr.Blocks() as demo:
    picture = gr.Image(format="png")
    gr.Button("Draw").click(lambda: Image.new("RGB", (8, 8), "azure"), None, picture)
    gr.DeepLinkButton()

demo.launch()
