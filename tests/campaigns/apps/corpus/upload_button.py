import gradio as gr

with gr.Blocks() as demo:
    button = gr.UploadButton(file_count="multiple")
    shown = gr.File()
    button.upload(lambda paths: paths, button, shown)

demo.launch()
