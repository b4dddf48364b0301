import gradio as gr
from PIL import Image

with gr.Blocks() as demo:
    picture, text, other = gr.Image(format="png"), gr.Textbox(), gr.File()

    def some():
        return {picture: Image.new("RGB", (8, 8), "lavender"), text: "drawn"}

    gr.Button("Go").click(some, None, [picture, text, other])

demo.launch()
