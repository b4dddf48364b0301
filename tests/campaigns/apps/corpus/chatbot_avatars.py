import gradio as gr
from PIL import Image

Image.new("RGB", (8, 8), "red").save("me.png")
Image.new("RGB", (8, 8), "blue").save("you.png")

with gr.Blocks() as demo:
    gr.Chatbot(
        [{"role": "user", "content": "Hello"}],
        avatar_images=("me.png", "you.png"),
    )

demo.launch()
