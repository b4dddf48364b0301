import gradio as gr

with gr.Blocks(delete_cache=(3600, 7200)) as demo:
    file, shown = gr.File(), gr.File()
    file.upload(lambda path: path, file, shown)

demo.launch()
