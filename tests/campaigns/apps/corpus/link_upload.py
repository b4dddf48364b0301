import gradio as gr


def linked(path):
    return f'<img src="/gradio_api/file={path}">'


gr.Interface(linked, gr.Image(type="filepath"), gr.HTML()).launch()
