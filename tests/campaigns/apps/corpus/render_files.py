import gradio as gr
from PIL import Image

with gr.Blocks() as demo:
    count = gr.Slider(1, 3, 2, step=1)

    @gr.render(inputs=count)
    def pictures(number):
        for size in range(int(number)):
            gr.Image(Image.new("RGB", (4 + size, 4), "red"), format="png")
        picture, button = gr.Image(type="filepath"), gr.Button("Use")
        button.click(lambda path: path, picture, gr.File())


demo.launch()
