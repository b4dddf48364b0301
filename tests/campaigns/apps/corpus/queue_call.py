import gradio as gr

with gr.Blocks() as demo:
    file, shown = gr.File(), gr.File()
    file.upload(lambda path: path, file, shown)

demo.queue(default_concurrency_limit=5, max_size=20).launch(max_threads=8)
