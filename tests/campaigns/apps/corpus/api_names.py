import gradio as gr
from PIL import Image

with gr.Blocks() as demo:
    colour, picture = gr.Textbox("gray"), gr.Image(format="png")
    button = gr.Button("Draw")
    button.click(lambda name: Image.new("RGB", (8, 8), name), colour, picture, api_name="draw")
    button.click(lambda name: name, colour, colour, api_visibility="undocumented")

    @gr.api
    def shout(text: str) -> str:
        return text.upper()


demo.launch()
