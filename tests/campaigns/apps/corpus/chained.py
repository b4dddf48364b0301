import gradio as gr
from PIL import Image

with gr.Blocks() as demo:
    first, second = gr.Image(type="filepath", format="png"), gr.Image(type="filepath")
    made = gr.Button("Go").click(lambda: Image.new("RGB", (8, 8), "tan"), None, first)
    made.then(lambda path: path, first, second).success(lambda path: path, second, gr.File())

demo.launch()
