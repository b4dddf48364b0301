import gradio as gr

inner = gr.Interface(lambda path: path, gr.File(), gr.File())

with gr.Blocks() as demo:
    inner.render()

demo.launch()
