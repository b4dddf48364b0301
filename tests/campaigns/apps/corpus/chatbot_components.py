import gradio as gr
from PIL import Image


def answer(history):
    picture = gr.Image(Image.new("RGB", (8, 8), "cyan"))
    return [*history, {"role": "assistant", "content": picture}]


with gr.Blocks() as demo:
    chat = gr.Chatbot()
    gr.Button("Go").click(answer, chat, chat)

demo.launch()
