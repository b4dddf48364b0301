import gradio as gr
from PIL import Image

pictures = [Image.new("RGB", (8, 8), name) for name in ("red", "green", "blue")]


def shown(gallery):
    return [path for path, _ in gallery][:1]


with gr.Blocks() as demo:
    gallery = gr.Gallery(pictures, type="filepath", format="png")
    chosen = gr.Files()
    gr.Button("First").click(shown, gallery, chosen)

demo.launch()
