import gradio as gr
from PIL import Image


def drawn(progress=gr.Progress()):
    for _ in progress.tqdm(range(3)):
        picture = Image.new("RGB", (8, 8), "orchid")
    return picture


with gr.Blocks() as demo:
    gr.Button("Draw").click(drawn, None, gr.Image(format="png"))

demo.launch()
