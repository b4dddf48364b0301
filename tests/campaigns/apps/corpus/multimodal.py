import gradio as gr


def parts(message):
    return message["text"], message["files"], {"text": "next", "files": message["files"]}


with gr.Blocks() as demo:
    box = gr.MultimodalTextbox(file_count="multiple")
    text, files = gr.Textbox(), gr.File()
    box.submit(parts, box, [text, files, box])

demo.launch()
