import gradio as gr
from PIL import Image

Image.new("RGB", (8, 8), "black").save("sample.png")

with gr.Blocks() as demo:
    picture = gr.Image(type="filepath")
    samples = gr.Dataset(components=[picture], samples=[["sample.png"]])
    samples.click(lambda row: row[0], samples, picture)

demo.launch()
