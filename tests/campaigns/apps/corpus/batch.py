import gradio as gr


def each(paths, names):
    return [paths, [name.upper() for name in names]]


with gr.Blocks() as demo:
    path, name = gr.File(), gr.Textbox("one")
    out, upper = gr.File(), gr.Textbox()
    gr.Button("Go").click(each, [path, name], [out, upper], batch=True, max_batch_size=4)

demo.launch()
