import gradio as gr
from PIL import Image

with gr.Blocks() as demo:
    colour, picture, file = gr.Textbox("blue"), gr.Image(format="png"), gr.File()

    def draw(name: str):
        """Draw a square at once."""
        return Image.new("RGB", (8, 8), name)

    gr.Button("Draw").click(draw, colour, picture, queue=False, api_name="draw")

demo.launch(mcp_server=True)
