import gradio as gr

with gr.Blocks() as demo:
    file, shown = gr.File(), gr.File()
    file.upload(lambda path: path, file, shown)

    demo.launch()
