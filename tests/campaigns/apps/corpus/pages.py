import gradio as gr

with gr.Blocks() as demo:
    gr.Interface(lambda path: path, gr.File(), gr.File())

with demo.route("Pictures", "/pictures"):
    picture, shown = gr.Image(type="filepath"), gr.Image()
    picture.upload(lambda path: path, picture, shown)

demo.launch()
