import gradio as gr
from PIL import Image


def answer(text, history):
    Image.new("RGB", (8, 8), "gold").save("answer.png")
    return "", [
        *history,
        {"role": "user", "content": text},
        {"role": "assistant", "content": {"path": "answer.png", "alt_text": "gold"}},
    ]


with gr.Blocks() as demo:
    chat, text = gr.Chatbot(), gr.Textbox("Draw")
    text.submit(answer, [text, chat], [text, chat])

demo.launch()
