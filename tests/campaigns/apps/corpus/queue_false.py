import gradio as gr
from PIL import Image

with gr.Blocks() as demo:
    file, picture = gr.File(), gr.Image(format="png")
    gr.Button("Fast").click(lambda: Image.new("RGB", (8, 8), "snow"), None, picture, queue=False)
    file.upload(lambda path: path, file, gr.File(), queue=False)

demo.launch()
