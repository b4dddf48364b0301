import gradio as gr


def answer(message, history):
    return f"{len(message['files'])} files, {len(history)} turns"


gr.ChatInterface(answer, multimodal=True).launch()
