import gradio as gr


def remembered(path, paths):
    paths = [*paths, path]
    return paths, paths


with gr.Blocks() as demo:
    paths = gr.State([])
    file, shown = gr.File(), gr.Files()
    file.upload(remembered, [file, paths], [paths, shown])
    gr.Button("Again").click(lambda kept: kept, paths, shown)

demo.launch()
