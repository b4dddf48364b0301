import gradio as gr
from PIL import Image

with gr.Blocks() as demo:
    picture = gr.Image(format="png")
    gr.Button("Draw").click(lambda: Image.new("L", (8, 8)), None, picture)
    demo.unload(lambda: None)

demo.launch()
